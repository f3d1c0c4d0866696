"""Files appear whole or not at all, also when the writer is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sae_genomics.atomic import atomic_path, read_json, remove_empty_folders, remove_leftovers, write_json


def test_a_failing_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.json"
    write_json(target, {"old": 1})

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert read_json(target) == {"old": 1}
    assert os.listdir(target.parent) == ["a.json"]


def test_a_killed_writer_leaves_the_old_file_and_its_leftover_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = (
        "import sys, time, pathlib; from sae_genomics.atomic import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as t:\n t.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    remove_leftovers(tmp_path)
    assert len(os.listdir(tmp_path)) == 2, "a living writer's file is left alone"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert target.read_text() == "old"
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["a.txt"]


def test_other_hosts_leftovers_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / f".partial-{socket.gethostname()}x-999999-a").write_text("")
    (tmp_path / ".partial-elsewhere-1-a").write_text("")
    remove_leftovers(tmp_path)
    assert len(os.listdir(tmp_path)) == 2


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [1.5])
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", [float("nan")])
    assert read_json(tmp_path / "a.json") == [1.5]


def test_half_a_json_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "absent.json") is None


def test_only_empty_folders_are_removed(tmp_path: Path) -> None:
    deep = tmp_path / "logs" / "run" / "heartbeats"
    deep.mkdir(parents=True)
    (tmp_path / "logs" / "kept.txt").write_text("")
    remove_empty_folders(deep, up_to=tmp_path / "logs")
    assert os.listdir(tmp_path / "logs") == ["kept.txt"]
