"""slurm/lib/stage.sh alone: a stand-in for Python that ends as it is told, and a scontrol that only notes what it was asked."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STAGE = Path(__file__).resolve().parents[2] / "slurm/lib/stage.sh"
CANCELLED = "cancelled: saved, and not requeued"


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """start(shell code that stands for Python): the batch script of a job that somebody cancels, at work."""

    def program(name: str, code: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{code}\n")
        path.chmod(0o755)
        return path

    program("scontrol", 'echo "JobId=6 JobState=COMPLETING Reason=None Restarts=0"')

    def call(code: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(STAGE), "train", "a.yaml"],
            env={
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "SLURM_JOB_ID": "6",
                "SAE_GENOMICS_PYTHON": str(program("python", code)),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_the_exit_code_is_the_stages(start, code):
    started = start(f"exit {code}")
    _, said = started.communicate(timeout=60)
    assert started.returncode == code
    assert f"train, job 6, ended with exit code {code}" in said
    assert CANCELLED not in said


@pytest.mark.parametrize("name", ["TERM", "USR1"])
def test_a_signal_that_python_got_first_and_could_not_hear_loses_nothing(start, name):
    """Slurm signals a job's processes one after the other, in no order."""
    started = start(f"kill -{name} $$; sleep 60")
    _, said = started.communicate(timeout=60)
    assert started.returncode == 75
    assert CANCELLED in said


def test_a_stage_that_saves_when_told_is_waited_for(start):
    started = start('trap "sleep 0.3; echo saved; exit 75" USR1; echo ready; while :; do sleep 0.05; done')
    assert started.stdout.readline() == "ready\n"
    started.send_signal(signal.SIGUSR1)
    output, said = started.communicate(timeout=60)
    assert (started.returncode, output) == (75, "saved\n")
    assert CANCELLED in said


def test_a_stage_that_ends_at_the_moment_of_the_signal_is_begun_again(start):
    """Bash may lose the code of a child that ends while a trap runs: about once in fifteen of these."""
    for attempt in range(150):
        started = start("echo $$; exec sleep 60")
        pid = int(started.stdout.readline())
        time.sleep(attempt % 3 / 1000)
        started.send_signal(signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):  # the script was quicker to pass it on
            os.kill(pid, signal.SIGTERM)
        _, said = started.communicate(timeout=60)
        assert started.returncode == 75, said
        assert CANCELLED in said


def test_a_requeued_job_leaves_as_soon_as_slurm_ends_it(start, tmp_path):
    """It ignores the signals that asked it to save, and then must not make Slurm wait until it kills."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/bash\n[ "$1" = requeue ] || echo "JobId=6 JobState=RUNNING Reason=None Restarts=0"\n')
    started = start('trap "exit 75" USR1; echo ready; while :; do sleep 0.05; done')
    assert started.stdout.readline() == "ready\n"
    started.send_signal(signal.SIGUSR1)
    for line in started.stderr:
        if "saved and requeued" in line:
            break
    time.sleep(0.5)
    assert started.poll() is None, "it would look like a failure"
    started.send_signal(signal.SIGTERM)
    assert started.wait(10) == 75
