"""One process at a time makes a damaged file again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sae_genomics import progress
from sae_genomics.claims import SILENT_SECONDS, claim, release
from sae_genomics.errors import Interrupted

LONG_AGO = 1_000_000_000.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "claims" / "extract_shard_0001.json"


@pytest.fixture
def sign(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat.json"


def held_by(file: Path, host: str, pid: int) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"host": host, "pid": pid}))


def test_one_has_it_and_the_others_wait_until_it_lets_go(
    file: Path, sign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claim(file, sign, "extract shard_0001")
    found: list[bool] = []
    others = [threading.Thread(target=lambda: found.append(claim(file, sign, "extract shard_0001"))) for _ in range(3)]
    for other in others:
        other.start()
    others[0].join(1.2)
    assert found == [], "they wait"
    release(file, file.parent)
    for other in others:
        other.join(30)
    assert found == [False] * 3, "what was claimed is done"
    assert not file.parent.exists()
    assert (
        capsys.readouterr().err.count("extract shard_0001 is being made again by another process; waiting for it") == 3
    )


def test_a_process_of_this_host_that_has_ended_holds_nothing(file: Path, sign: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom sae_genomics.claims import claim\n"
        "assert claim(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), 'it')\nos._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(file), str(sign)], check=False)
    assert json.loads(file.read_text())["pid"] != os.getpid()
    assert claim(file, sign, "it")
    assert json.loads(file.read_text())["pid"] == os.getpid()


def test_another_host_is_believed_while_it_gives_signs(file: Path, sign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_by(file, "gpu-7", 4711)
    sign.touch()
    os.utime(file, (LONG_AGO, LONG_AGO))
    monkeypatch.setattr(progress, "_stop_signal", 15)  # a signal ends the waiting
    with pytest.raises(Interrupted):
        claim(file, sign, "it")
    assert json.loads(file.read_text())["host"] == "gpu-7"
    monkeypatch.setattr(progress, "_stop_signal", None)
    os.utime(sign, (LONG_AGO, LONG_AGO))
    assert claim(file, sign, "it"), f"silent for more than {SILENT_SECONDS} s"
