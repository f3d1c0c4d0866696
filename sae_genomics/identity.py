"""What a file or folder holds, as a short hash: the root of every fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

WHOLE_FILE_LIMIT = 1 << 30
_BLOCK = 1 << 16
_SAMPLES = 256


def hash_values(*values: Any) -> str:
    """16 hexadecimal digits of BLAKE2b over the values' canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def hash_file(path: Path, *, by_time: bool = True) -> str:
    """Identity of a file's content.

    Up to 1 GiB every byte counts. Beyond that reading would take minutes on a login node, so size,
    modification time and 256 evenly spaced 64 KiB blocks (the first and the last among them) stand for it.
    by_time: False leaves the modification time out, for files in which every change shows everywhere, such as weights:
        a copy is then the same file.
    """
    size = os.stat(path).st_size
    digest = hashlib.blake2b(digest_size=8)
    digest.update(str(size).encode())
    with open(path, "rb") as file:
        if size <= WHOLE_FILE_LIMIT:
            while block := file.read(1 << 22):
                digest.update(block)
        else:
            if by_time:
                digest.update(str(os.stat(path).st_mtime_ns).encode())
            for sample in range(_SAMPLES):
                file.seek((size - _BLOCK) * sample // (_SAMPLES - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()
