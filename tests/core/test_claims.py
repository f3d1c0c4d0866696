"""One process repairs what several found damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sae_genomics import claims


def _repair(claimed: Path, damaged: Path, done: Any, start: Any) -> None:
    start.wait()
    while not damaged.exists():
        if claims.claim(claimed, damaged.parent / "sign", "the file"):
            try:
                if not damaged.exists():
                    with open(damaged.parent / f"repair_{os.getpid()}", "x"):
                        time.sleep(0.3)
                    damaged.write_text("whole")
            finally:
                claims.release(claimed, up_to=damaged.parent)
    done.release()


def test_one_has_it_and_the_others_wait_until_it_lets_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, sign = tmp_path / "claims" / "claim.json", tmp_path / "sign"
    assert claims.claim(file, sign, "extract shard_0001")
    found: list[bool] = []
    others = [
        threading.Thread(target=lambda: found.append(claims.claim(file, sign, "extract shard_0001"))) for _ in range(3)
    ]
    for other in others:
        other.start()
    others[0].join(1.2)
    assert found == [], "they wait"
    claims.release(file, file.parent)
    for other in others:
        other.join(30)
    assert found == [False] * 3, "what was claimed is done"
    assert not file.parent.exists()
    said = capsys.readouterr().err
    assert said.count("extract shard_0001 is being made again by another process; waiting for it") == 3


def test_many_processes_repair_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    done, start = context.Semaphore(0), context.Event()
    claimed, damaged = tmp_path / "claims" / "extract.json", tmp_path / "shard.h5"
    processes = [context.Process(target=_repair, args=(claimed, damaged, done, start)) for _ in range(6)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(list(tmp_path.glob("repair_*"))) == 1
    assert not claimed.parent.exists(), "nothing is left of the claims"


def held_by(path: Path, host: str, pid: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": host, "pid": pid}))


def test_the_claim_of_a_process_that_ended_is_taken_over(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / "a" / "claim.json"
    held_by(path, socket.gethostname(), ended.pid)
    assert claims.claim(path, tmp_path / "sign", "the file")
    assert json.loads(path.read_text())["pid"] == os.getpid()
    claims.release(path, up_to=tmp_path)
    assert not tmp_path.exists()


def test_the_claim_of_a_silent_host_is_taken_over(tmp_path: Path) -> None:
    path, sign = tmp_path / "claim.json", tmp_path / "sign"
    held_by(path, "another-host", 1)
    long_ago = time.time() - 2 * claims.SILENT_SECONDS
    os.utime(path, (long_ago, long_ago))
    assert claims.claim(path, sign, "the file")


def test_the_claim_of_a_host_that_works_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, sign = tmp_path / "claim.json", tmp_path / "sign"
    held_by(path, "another-host", 1)
    long_ago = time.time() - 2 * claims.SILENT_SECONDS
    os.utime(path, (long_ago, long_ago))
    sign.touch()  # a heartbeat
    looks = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            path.unlink()

    monkeypatch.setattr(claims.time, "sleep", look)
    assert not claims.claim(path, sign, "shard 3"), "what was claimed is done: look again"
    assert len(looks) == 3
    assert "shard 3 is being made again by another process; waiting for it" in capsys.readouterr().err
    assert not path.exists()


def test_a_claim_that_is_just_being_written_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "claim.json"
    path.touch()
    monkeypatch.setattr(
        claims.time, "sleep", lambda seconds: held_by(path, socket.gethostname(), os.getpid()) or path.unlink()
    )
    assert not claims.claim(path, tmp_path / "sign", "the file")
