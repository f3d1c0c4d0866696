"""What a process keeps between tasks."""

import os
import platform
from pathlib import Path

import pytest

from sae_genomics.execute import give_back_memory


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_freed_memory_between_what_is_in_use_is_given_back():
    blocks = [bytearray(b"x") * 20_000 for _ in range(8_000)]
    full = resident()
    kept = blocks[::40]
    blocks.clear()
    give_back_memory()
    assert resident() < full - 120e6
    assert all(block == b"x" * 20_000 for block in kept)
    give_back_memory()
