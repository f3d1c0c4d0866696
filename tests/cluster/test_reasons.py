"""Reasons and status from what is at hand: accounting, the queue, logs, attempts; each alone."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from sae_genomics.cluster import attempts, reasons
from sae_genomics.cluster.jobs import Job, add_jobs, read_jobs
from sae_genomics.cluster.local import run_locally
from sae_genomics.cluster.pipeline import refuse_beside_others
from sae_genomics.cluster.plan import make_plan
from sae_genomics.cluster.queue import make_comment
from sae_genomics.cluster.reasons import Evidence, failure_reason
from sae_genomics.cluster.status import next_step, render, task_statuses
from sae_genomics.commands import REPOSITORY, path_words
from sae_genomics.errors import Interrupted, UserError
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

TRAIN = stage_named("train")


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """tools(squeue=script, sacct=script): programs of those names, in place of Slurm's; each call is counted."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    # Only these: a Slurm that is installed here must not answer.
    for name in ("squeue", "sacct", "scontrol", "sbatch", "sinfo"):
        (folder / name).write_text(
            f"#!/bin/sh\necho x >>{folder}/{name}.calls\necho '{name}: error: not available' >&2\nexit 1\n"
        )
        (folder / name).chmod(0o755)

    def write(**scripts: str) -> None:
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\necho x >>{folder}/{name}.calls\n{script}\n")

    write.calls = lambda name: (
        len((folder / f"{name}.calls").read_text().split()) if (folder / f"{name}.calls").exists() else 0
    )
    return write


@pytest.fixture
def submitted(make_run, stages_write_files) -> Run:
    """A run whose layers were all submitted as job 41, of which layer 2 is done and nothing else is known."""
    run = make_run(layers=4)
    for name, tasks in (("prepare", [0]), ("extract", range(3)), ("train", [2])):
        for task in tasks:
            attempts.run_task(run, stage_named(name), task, noted=False)
    logs = run.logs / "train_%A_%a"
    add_jobs(
        run,
        [
            Job(
                "2026-01-01T00:00:00",
                "anna",
                "train",
                "41",
                "0-3%2",
                0,
                1,
                "",
                "8G",
                "1:00:00",
                f"{logs}.out",
                f"{logs}.err",
            )
        ],
    )
    return run


def squeue_line(run: Run, index: int, state: str, reason: str = "None", status: int = 0, node: str = "n1") -> str:
    comment = make_comment(run, TRAIN, 0, 1)[0]
    values = [(f"41_{index}", 40), ("41", 20), (str(index), 20), (state, 20), (reason, 60), (str(status), 12), (node, 40), (comment, 120),
              ("anna", 32), ("1:00", 20), ("1:00:00", 20), ("0", 8)]  # fmt: skip
    return "".join(text.ljust(width) for text, width in values)


def shown(run: Run) -> dict[str, tuple[str, str, str]]:
    """Unit to (state, kind, note) of the stage train."""
    tasks = task_statuses(run, make_plan(run), Evidence.gather(run))
    return {task.unit: (task.state, task.kind, task.note) for task in tasks if task.stage == "train"}


def test_accounting_gives_the_reasons_in_one_call(submitted, tools):
    rows = [
        "41_0|OUT_OF_MEMORY|0:125|n3",
        "41_1|TIMEOUT|0:0|n4",
        "41_2|COMPLETED|0:0|n3",
        "41_3|CANCELLED by 1000|0:0|n7",
    ]
    tools(squeue="exit 0", sacct="cat <<'END'\n" + "\n".join(rows) + "\nEND")
    states = shown(submitted)
    assert states["layer_00"] == ("failed", "OUT_OF_MEMORY", "OUT_OF_MEMORY on n3")
    assert states["layer_01"] == ("failed", "TIMEOUT", "TIMEOUT on n4")
    assert states["layer_02"][0] == "done"
    assert states["layer_03"] == ("failed", "CANCELLED", "CANCELLED on n7")
    assert (tools.calls("squeue"), tools.calls("sacct"), tools.calls("scontrol"), tools.calls("sinfo")) == (1, 1, 0, 0)


def test_the_queue_gives_states_progress_and_reasons_without_accounting(submitted, tools):
    lines = [
        squeue_line(submitted, 0, "RUNNING"), squeue_line(submitted, 1, "PENDING", "Resources", node=""),
        squeue_line(submitted, 3, "NODE_FAIL", "NodeDown"),
    ]  # fmt: skip
    tools(squeue="cat <<'END'\n" + "\n".join(lines) + "\nEND")
    beat = submitted.heartbeat_file(TRAIN, 0)
    beat.parent.mkdir(parents=True)
    beat.write_text(json.dumps({"label": "train layer 0", "done": 1200, "total": 5000, "unit": "tokens", "rate": 80.0, "seconds_left": 47.5,
                                "note": "loss 0.2", "time": __import__("time").time(), "host": "n1", "pid": 1}))  # fmt: skip
    states = shown(submitted)
    assert states["layer_00"][0] == "running"
    assert re.fullmatch(
        r"41_0 on n1, 1:00 of 1:00:00  1,200/5,000 tokens, 80.0 tokens/s, 4[678] s left, loss 0.2",
        states["layer_00"][2],
    )
    assert states["layer_01"][::2] == ("queued", "Resources")
    assert states["layer_03"] == ("failed", "NODE_FAIL", "NODE_FAIL on n1")
    assert tools.calls("squeue") == 1


@pytest.mark.parametrize(
    ("log", "kind", "words"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=41.batch.\n", "OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("slurmstepd-n1: error: StepId=41.batch exceeded memory limit (32 > 5), being killed\n", "OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("numpy: Unable to allocate 3.2 GiB for an array\n", "OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("slurmstepd: error: *** JOB 41 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***\n", "TIMEOUT", "TIMEOUT"),
        ("error: no Python in /x/.venv: make it with bash scripts/setup.sh\n2026-01-01 00:00:00 n1: train, job 41_0, ended with exit code 2\n",
         "FAILED", "error: no Python in /x/.venv: make it with bash scripts/setup.sh"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n", "FAILED", "CUDA out of memory"),
    ],
)  # fmt: skip
def test_logs_give_the_reason_when_slurm_has_forgotten(submitted, tools, log, kind, words):
    (submitted.logs / "train_41_0.err").write_text("train layer 0: 3/5 steps\n" + log)
    state = shown(submitted)["layer_00"]
    assert state[:2] == ("failed", kind)
    assert words in state[2]
    assert failure_reason(submitted, TRAIN, 0) == state[2]


def test_attempts_give_the_reason_and_their_number(make_run, stages_write_files, tools):
    run = make_run()
    stages_write_files.fail["train", 0] = UserError("too few tokens; set data.max_cells to more")
    run_locally(run)
    run_locally(run)
    assert shown(run)["layer_00"] == ("failed", "FAILED", "too few tokens; set data.max_cells to more")
    assert failure_reason(run, TRAIN, 0) == "too few tokens; set data.max_cells to more (2 attempts)"
    text = render(run, task_statuses(run, make_plan(run), Evidence.gather(run)), Evidence.gather(run))
    assert "train layer_00: too few tokens; set data.max_cells to more, 2 attempts" in text
    assert f"next: bash {REPOSITORY}/slurm/00_full_pipeline.sh {run.config_file}" in text
    assert tools.calls("squeue") == 0


def test_an_attempt_that_is_alive_is_running_and_a_killed_one_is_not(make_run, stages_write_files, tools):
    run = make_run()
    stages_write_files.fail["train", 0] = Interrupted("x")
    with pytest.raises(Interrupted):
        run_locally(run)
    attempts.begin(run, TRAIN, 1)
    assert shown(run)["layer_01"][0] == "running"
    file = attempts.attempts_file(run, TRAIN, 1)
    file.write_text(file.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194305'))
    state, _, note = shown(run)["layer_01"]
    assert state == "failed"
    assert "killed" in note


def test_squeue_being_away_is_said(submitted, tools):
    evidence = Evidence.gather(submitted)
    tasks = task_statuses(submitted, make_plan(submitted), evidence)
    assert "squeue gives no answer (not available)" in render(submitted, tasks, evidence)


def test_next_step_follows_the_state(make_run, stages_write_files, submitted, tools):
    def step(run: Run) -> str:
        return next_step(run, task_statuses(run, make_plan(run), Evidence.gather(run)))

    assert "00_full_pipeline.sh" in step(submitted)
    (submitted.logs / "train_41_0.err").write_text("boom\n")
    assert "resubmit_failed.sh" in step(submitted)
    tools(squeue="cat <<'END'\n" + "\n".join(squeue_line(submitted, index, "RUNNING") for index in range(4)) + "\nEND")
    assert "status.sh" in step(submitted)
    run_locally(submitted)
    assert step(submitted) == f"read {path_words(submitted.report_file)}"


def test_job_list_reads_back(submitted):
    jobs = read_jobs(submitted)
    assert jobs[0].indices == [0, 1, 2, 3]
    add_jobs(submitted, jobs)
    assert read_jobs(submitted) == jobs * 2
    header = submitted.jobs_file.read_text().splitlines()[0].split("\t")
    assert header == [
        "submitted",
        "user",
        "stage",
        "job",
        "array",
        "offset",
        "pack",
        "dependency",
        "memory",
        "time",
        "output",
        "error",
    ]


def test_cuda_memory_is_not_what_mem_buys():
    assert reasons._kind(None, "CUDA out of memory. Tried to allocate", "") == "FAILED"


def test_paths_with_percent_signs(submitted):
    log = submitted.logs / "100%%_%A_%a.err"
    add_jobs(submitted, [Job("t", "u", "train", "42", "0", 0, 1, "", "", "", str(log), str(log))])
    (submitted.logs / "100%_42_0.err").write_text("x\n")
    assert Evidence(submitted).log_of(TRAIN, 0) == Path(submitted.logs / "100%_42_0.err")


def test_letters_after_a_percent_sign_of_the_path_are_not_slurms(submitted):
    log = submitted.logs / "a%%A%%j%%a_%A_%a.err"
    add_jobs(submitted, [Job("t", "u", "train", "42", "0", 0, 1, "", "", "", str(log), str(log))])
    (submitted.logs / "a%A%j%a_42_0.err").write_text("x\n")
    assert Evidence(submitted).log_of(TRAIN, 0) == Path(submitted.logs / "a%A%j%a_42_0.err")


def test_an_error_line_of_the_log_tells_more_than_its_exit_code(submitted, tools):
    """No Python began, so there is no attempt; Slurm still knows the exit code of the script."""
    tools(squeue=f"cat <<'END'\n{squeue_line(submitted, 0, 'FAILED', 'NonZeroExitCode', status=2 << 8)}\nEND")
    assert shown(submitted)["layer_00"] == ("failed", "FAILED", "on n1: exit code 2")
    line = (
        "error: on n1: environment conda names no conda environment; see the environment section of the cluster profile"
    )
    (submitted.logs / "train_41_0.err").write_text(f"{line}\n")
    assert shown(submitted)["layer_00"] == ("failed", "FAILED", f"on n1: {line}")


def test_jobs_of_other_settings_are_told(submitted, tools):
    lines = [squeue_line(submitted, 0, "RUNNING"), squeue_line(submitted, 1, "PENDING", "Resources", node="")]
    tools(squeue="cat <<'END'\n" + "\n".join(lines) + "\nEND")

    def text() -> str:
        evidence = Evidence.gather(submitted)
        return render(submitted, task_statuses(submitted, make_plan(submitted), evidence), evidence)

    assert "other settings" not in text()
    submitted.config.sae.k = 8
    submitted.__dict__.pop("fingerprints")
    assert "layer_01: job 41, Resources, with other settings than these" in text()
    assert "jobs 41 were submitted with other settings than these" in text()


def test_a_stage_by_hand_leaves_what_slurm_has(submitted, tools):
    tools(squeue=f"cat <<'END'\n{squeue_line(submitted, 0, 'RUNNING')}\nEND", sbatch="exit 0", scontrol="exit 0")
    with pytest.raises(
        UserError, match=r"train layer_00 is in Slurm's queue: wait for it \(bash .*--watch\), or scancel 41"
    ):
        refuse_beside_others(submitted, TRAIN, range(4))
    refuse_beside_others(submitted, TRAIN, [1])
    refuse_beside_others(submitted, stage_named("extract"), [0])
