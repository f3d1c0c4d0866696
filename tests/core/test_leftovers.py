"""What a killed attempt leaves is counted, and removed by the next attempt at the task, whatever host it ran on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sae_genomics.atomic import atomic_path, partial_named, remove_leftovers, temporary_beside, write_json, write_text
from sae_genomics.cluster.status import status
from sae_genomics.config import load_config
from sae_genomics.data.disk import bytes_under
from sae_genomics.errors import UserError
from sae_genomics.execute import execute
from sae_genomics.leftovers import attempts_file, find_leftovers, remove_leftovers_of
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import stage_named
from tests.pipeline.conftest import small_values

EXTRACT, TRAIN = stage_named("extract"), stage_named("train")
LONG_AGO = time.time() - 3600


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = tmp_path / "small.yaml"
    config.write_text(json.dumps(small_values(tmp_path)))
    return Run(load_config(config), config)


def leave(path: Path, host: str, pid: int, modified: float | None = None) -> Path:
    """A temporary file of a process on another host."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = path.parent / f".partial-{host}-{pid}.123456-140001-{path.name}"
    left.write_bytes(bytes(1000))
    if modified is not None:
        os.utime(left, (modified, modified))
    return left


def note(run: Run, host: str, pid: int, **more: object) -> None:
    write_json(attempts_file(run, EXTRACT, 1), [{"started": 1.0, "host": host, "pid": pid, **more}])


@pytest.mark.parametrize("host", ["node12", "gpu-a100-3", "cn-7.cluster-2.example", "n-1-2"])
def test_a_name_says_who_wrote_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr("sae_genomics.atomic._this_process", lambda pid: f"{host}-{pid}.77")
    found = partial_named(temporary_beside(tmp_path / "shard_0003.h5"))
    assert found is not None
    assert (found.host, found.pid, found.started, found.final) == (host, os.getpid(), "77", "shard_0003.h5")
    old = partial_named(tmp_path / f".partial-{host}-4711-139872-shard_0003.h5")
    assert old is not None
    assert (old.host, old.pid, old.started, old.final) == (host, 4711, None, "shard_0003.h5")


def test_a_reused_process_id_is_another_process(tmp_path: Path) -> None:
    host, pid = socket.gethostname(), os.getpid()
    (tmp_path / f".partial-{host}-{pid}.1-140001-old.json").touch()
    mine = temporary_beside(tmp_path / "new.json")
    mine.touch()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]


def test_the_next_attempt_removes_what_an_ended_one_left_on_another_host(run: Run) -> None:
    files = [run.tokens_file(1), run.activations_file(0, 1), run.manifest_file(EXTRACT, 1)]
    left = [leave(file, "gpu-7", 4711) for file in files]
    others = [leave(run.tokens_file(0), "gpu-7", 4711, LONG_AGO), leave(run.tokens_file(1), "gpu-8", 12)]
    note(run, "gpu-7", 4711, ended=2.0, outcome="failed")
    remove_leftovers_of(run, EXTRACT, 1)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others), "another task's, and that of a process that may be alive"


def test_slurm_runs_one_attempt_at_a_task(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    left = leave(run.activations_file(0, 1), "gpu-7", 4711)
    note(run, "gpu-7", 4711, job="41_1")
    remove_leftovers_of(run, EXTRACT, 1)
    assert left.exists(), "an attempt by hand does not know whether the job still runs"
    monkeypatch.setenv("SLURM_JOB_ID", "50")
    remove_leftovers_of(run, EXTRACT, 1)
    assert not left.exists()


def test_silence_is_an_end(run: Run) -> None:
    left = leave(run.activations_file(0, 1), "gpu-7", 4711, LONG_AGO)
    beat = {"host": "gpu-7", "pid": 4711}
    write_json(run.heartbeat_file(EXTRACT, 1), {**beat, "time": time.time()})
    remove_leftovers_of(run, EXTRACT, 1)
    assert left.exists()
    assert find_leftovers(run) == []
    write_json(run.heartbeat_file(EXTRACT, 1), {**beat, "time": LONG_AGO})
    assert [partial.path for partial in find_leftovers(run)] == [left]
    remove_leftovers_of(run, EXTRACT, 1)
    assert not left.exists()


def test_checkpoints_and_folders_of_a_layer_are_its_tasks(run: Run) -> None:
    checkpoint = leave(run.sae_dir(2) / "checkpoint" / "training.safetensors", "gpu-7", 4711, LONG_AGO)
    staging = leave(run.sae_dir(2) / "sae", "gpu-7", 4711)
    staging.unlink()
    staging.mkdir()
    (staging / "cfg.json").touch()
    os.utime(staging, (LONG_AGO, LONG_AGO))
    other = leave(run.sae_dir(0) / "checkpoint" / "training.safetensors", "gpu-7", 4711, LONG_AGO)
    remove_leftovers_of(run, TRAIN, 1)
    assert not checkpoint.exists()
    assert not staging.exists()
    assert other.exists()


def test_a_task_removes_what_seemed_alive_when_it_began(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert execute(run, stage_named("prepare"), 0)
    left = leave(run.activations_file(0, 1), "gpu-7", 4711)
    work = type(EXTRACT).call

    def long_work(stage: Stage, run: Run, task: int) -> None:
        assert left.exists(), "it seems alive"
        work(stage, run, task)
        os.utime(left, (LONG_AGO, LONG_AGO))  # as after a task that took longer than the silence

    monkeypatch.setattr(type(EXTRACT), "call", long_work)
    assert execute(run, EXTRACT, 1)
    assert not left.exists()


def test_two_at_work_on_one_file_end_with_one_line_and_a_sound_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"

    def overtaken() -> None:
        with atomic_path(target) as mine:
            mine.write_text("half")
            mine.unlink()  # as another attempt does that believes this one dead
            write_text(target, "whole")

    with pytest.raises(
        UserError, match=r"a\.json: its temporary file .* was removed while it was written.*type the same"
    ):
        overtaken()
    assert target.read_text() == "whole"
    assert os.listdir(tmp_path) == ["a.json"]


def test_another_missing_file_stays_a_bug(tmp_path: Path) -> None:
    def forgot() -> None:
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text("x")
            (tmp_path / "absent").read_text()

    with pytest.raises(FileNotFoundError):
        forgot()


def test_status_counts_them_and_the_plan_does_not(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.config_file is not None
    leave(run.activations_file(0, 1), "gpu-7", 4711, LONG_AGO)
    leave(run.activations_file(2, 1), "gpu-7", 4711, LONG_AGO)
    assert bytes_under(run.checkpoints) == 0
    assert status(run.config_file) == 0
    assert (
        "leftover: 2 partial files of processes that have ended, 2.0 KB; the next attempts" in capsys.readouterr().out
    )
    assert status(run.config_file, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["leftover"] == {"files": 2, "bytes": 2000}
    remove_leftovers_of(run, EXTRACT, 1)
    status(run.config_file)
    assert "leftover" not in capsys.readouterr().out


def test_status_says_what_interrupted_shards_keep(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.config_file is not None
    left = leave(run.activations_file(0, 1), "gpu-7", 4711, LONG_AGO)
    left.rename(left.with_name(left.name.replace(".partial-", ".unfinished-")))
    status(run.config_file)
    said = capsys.readouterr().out
    assert "kept: 1.0 KB of interrupted shards; the next attempts go on from them" in said
    assert "leftover" not in said
    remove_leftovers_of(run, EXTRACT, 1)
    assert find_leftovers(run, ".unfinished-"), "extraction alone knows whether it is of use"


def test_a_killed_lock_leaves_nothing_for_the_next(run: Run) -> None:
    code = (
        "import os, sys, pathlib; from sae_genomics.atomic import temporary_beside\n"
        "path = temporary_beside(pathlib.Path(sys.argv[1])); path.parent.mkdir(parents=True); path.touch(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(run.logs / "lock")], check=False)
    assert len(find_leftovers(run)) == 1
    from sae_genomics.cluster.lock import locked

    with locked(run, "testing"):
        assert os.listdir(run.logs) == ["lock"]
