"""The local run: order, failures that stop only themselves, going on, making again."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from sae_genomics import cli
from sae_genomics.cluster import attempts
from sae_genomics.cluster.local import run_locally
from sae_genomics.cluster.lock import _remove, locked, refuse_if_locked
from sae_genomics.cluster.pipeline import pipeline, refuse_beside_others
from sae_genomics.cluster.plan import describe, make_plan
from sae_genomics.errors import Interrupted, UserError
from sae_genomics.processes import process_start
from sae_genomics.run import Run
from sae_genomics.stages import stage_named, stages_of
from tests.stage_names import on_from


def everything(run: Run) -> list[tuple[str, int]]:
    return [(stage.name, task) for stage in stages_of(run) for task in range(run.n_tasks(stage))]


def test_runs_every_task_in_order_then_nothing(make_run, stages_write_files, capsys):
    run = make_run()
    assert run_locally(run) == 0
    assert stages_write_files == everything(run)
    assert str(run.report_file) in capsys.readouterr().out
    stages_write_files.clear()
    assert run_locally(run) == 0
    assert stages_write_files == []


def test_failing_layer_stops_only_itself(make_run, stages_write_files, capsys):
    run = make_run(layers=3)
    stages_write_files.fail["train", 1] = UserError("too few tokens")
    assert run_locally(run) == 2
    assert ("train", 2) in stages_write_files
    assert ("associate", 1) not in stages_write_files
    assert ("associate", 2) in stages_write_files
    assert stages_write_files[-1] == ("report", 0)
    error = capsys.readouterr().err
    assert "error: train layer_01: too few tokens" in error
    assert "associate: 1 task left out, because train layer_01 is not done" in error
    assert "Traceback" not in error
    assert attempts.attempts_of(run, stage_named("train"), 1)[-1].reason == "too few tokens"

    stages_write_files.fail.clear()
    stages_write_files.clear()
    assert run_locally(run) == 0
    assert stages_write_files == [("train", 1), ("associate", 1), ("validate", 1), ("report", 0)]


def test_bug_gives_traceback_and_exit_code_1_and_goes_on(make_run, stages_write_files, capsys):
    run = make_run()
    stages_write_files.fail["extract", 0] = KeyError("slot")
    assert run_locally(run) == 1
    assert ("extract", 2) in stages_write_files
    assert ("train", 0) not in stages_write_files
    assert stages_write_files[-1] == ("report", 0)
    assert "Traceback" in capsys.readouterr().err


def test_refused_input_leaves_nothing_behind(make_run, stages_write_files, tmp_path):
    run = make_run()
    before = sorted(tmp_path.rglob("*"))
    stages_write_files.fail["prepare", 0] = UserError("no genes matched")
    assert run_locally(run) == 2
    assert stages_write_files == [("prepare", 0)]
    assert sorted(tmp_path.rglob("*")) == before


def test_interruption_passes_and_is_noted(make_run, stages_write_files):
    run = make_run()
    stages_write_files.fail["train", 0] = Interrupted("stopped by SIGTERM")
    with pytest.raises(Interrupted):
        run_locally(run)
    assert attempts.attempts_of(run, stage_named("train"), 0)[-1].outcome == "interrupted"
    assert not (run.logs / "lock").exists()


def test_changed_config_makes_stale_what_depends_on_it_and_says_why(make_run, stages_write_files, capsys):
    run_locally(make_run(sae={"k": 16}))
    stages_write_files.clear()
    capsys.readouterr()
    run = make_run(sae={"k": 32})
    assert run_locally(run) == 0
    assert {name for name, _ in stages_write_files} == set(on_from("train"))
    assert "2 stale: sae.k was 16, is 32" in capsys.readouterr().err


def test_from_stage_makes_it_and_the_later_ones_again(make_run, stages_write_files):
    run = make_run()
    run_locally(run)
    stages_write_files.clear()
    assert run_locally(run, from_stage="associate") == 0
    assert [name for name, _ in stages_write_files] == ["associate", "associate", "validate", "validate", "report"]


def test_damaged_file_is_named_in_the_plan(make_run, stages_write_files):
    run = make_run()
    run_locally(run)
    run.tokens_file(1).write_bytes(b"cut")
    text = describe(run, make_plan(run))
    assert "shard_0001.h5 is damaged: 3 bytes instead of 1" in text


def test_lock_names_its_holder_and_is_taken_over_from_the_dead(make_run):
    run = make_run()
    with (
        locked(run, "submitting"),
        pytest.raises(UserError, match=r"process \d+\), submitting, since .*rm "),
        locked(run, "running it locally"),
    ):
        pass
    assert not run.logs.exists()
    run.logs.mkdir(parents=True)
    dead = {"user": "anna", "host": socket.gethostname(), "pid": 2**22 + 1, "started": "1", "doing": "x", "since": 0}
    (run.logs / "lock").write_text(json.dumps(dead))
    with locked(run, "submitting"):
        assert json.loads((run.logs / "lock").read_text())["pid"] == os.getpid()
    reused = {**dead, "pid": os.getpid(), "started": "1"}
    assert process_start(os.getpid()) != "1"
    run.logs.mkdir(parents=True)
    (run.logs / "lock").write_text(json.dumps(reused))
    with locked(run, "submitting"):
        pass
    run.logs.mkdir(parents=True)
    (run.logs / "lock").write_text(json.dumps({**dead, "host": "login2"}))
    with pytest.raises(UserError, match="anna on login2"), locked(run, "submitting"):
        pass


def test_a_lock_taken_since_the_stale_one_was_seen_stays(make_run):
    """Two processes see the same stale lock; the slower must not remove what the faster took."""
    run = make_run()
    stale = {"user": "anna", "host": socket.gethostname(), "pid": 2**22 + 1, "started": "1", "doing": "x", "since": 0}
    lock = run.logs / "lock"
    with locked(run, "submitting"):
        mine = lock.read_text()
        _remove(lock, stale)
        assert lock.read_text() == mine
        assert [path.name for path in run.logs.iterdir()] == ["lock"]
    run.logs.mkdir(parents=True)
    lock.write_text(json.dumps(stale))
    _remove(lock, stale)
    assert list(run.logs.iterdir()) == []
    _remove(lock, stale)  # removed by the other already


def test_a_stage_by_hand_does_not_run_beside_a_local_run(make_run):
    run = make_run()
    refuse_if_locked(run)
    with locked(run, "running it locally"), pytest.raises(UserError, match=r", running it locally, since"):
        refuse_beside_others(run, stage_named("train"), [0])
    refuse_beside_others(run, stage_named("train"), [0])
    assert not run.logs.exists()


@pytest.fixture
def by_hand(make_run, stages_write_files, monkeypatch):
    """by_hand(stage, *arguments): the exit code of scripts/0N_STAGE.py on a run of three shards and three layers."""
    run = make_run(layers=3)
    monkeypatch.setattr(Run, "check", lambda self, *arguments, **named: None)
    monkeypatch.setattr(cli, "load_config", lambda *arguments: run.config)
    monkeypatch.setattr(cli, "Run", lambda *arguments: run)
    return lambda stage, *arguments: cli.stage_main(stage, ["--config", str(run.config_file), *arguments])


def test_a_bug_in_one_layer_stops_that_layer_alone_also_by_hand(by_hand, stages_write_files, capsys):
    assert by_hand("prepare") == by_hand("extract") == 0
    stages_write_files.fail["train", 1] = TypeError("unsupported operand")
    assert by_hand("train") == 1
    assert stages_write_files[-3:] == [("train", 0), ("train", 1), ("train", 2)]
    error = capsys.readouterr().err
    assert "train layer_01 failed with a bug: TypeError: unsupported operand" in error
    assert "train layer_02: done" in error


@pytest.mark.parametrize(
    ("stage", "words"),
    [("train", "stage train of run t has 3 tasks, 0 to 2"), ("prepare", "stage prepare of run t has 1 task, 0 alone")],
)
def test_a_task_that_the_stage_does_not_have(by_hand, stages_write_files, tmp_path, capsys, stage, words):
    before = sorted(tmp_path.rglob("*"))
    assert by_hand(stage, "--task", "17") == 2
    assert [line for line in capsys.readouterr().err.splitlines() if line] == [
        f"error: --task 17: {words}; leave --task out to run all that are not done"
    ]
    assert stages_write_files == []
    assert sorted(tmp_path.rglob("*")) == before


def test_slurm_without_sbatch_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch was not found"):
        pipeline(tmp_path / "missing.yaml", slurm=True)
