"""slurm/lib/requeue.sh alone, with a scontrol that only notes what it was asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REQUEUE = Path(__file__).resolve().parents[2] / "slurm/lib/requeue.sh"
RUNNING = "JobId=6 JobState=RUNNING Reason=None Restarts=0"


@pytest.fixture
def requeue(tmp_path):
    """requeue(what scontrol shows, variables) -> (calls of scontrol, what was said)."""

    def call(shown: str, **variables: str) -> tuple[list[str], str]:
        scontrol = tmp_path / "scontrol"
        scontrol.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n[ "$1" = requeue ] || echo "{shown}"\n')
        scontrol.chmod(0o755)
        (tmp_path / "sleep").write_text("#!/bin/sh\n")
        (tmp_path / "sleep").chmod(0o755)
        done = subprocess.run(
            ["bash", "-c", f"source {REQUEUE}; requeue"],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "6", **variables},
            capture_output=True,
            text=True,
        )
        calls = tmp_path / "calls"
        return calls.read_text().splitlines() if calls.exists() else [], done.stderr

    return call


def test_only_this_array_task_is_asked_about_and_requeued(requeue):
    """The last task of an array bears the array's own id, under which scontrol would find all of its tasks."""
    calls, said = requeue(RUNNING, SLURM_ARRAY_JOB_ID="6", SLURM_ARRAY_TASK_ID="1")
    assert calls == ["--oneliner show job 6_1", "requeue 6_1"]
    assert "saved and requeued: restart 1 of at most 20" in said


def test_a_job_without_an_array_goes_by_its_id(requeue):
    assert requeue(RUNNING)[0] == ["--oneliner show job 6", "requeue 6"]


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ("JobId=6 JobState=COMPLETING Reason=None Restarts=0", "cancelled: saved, and not requeued"),
        ("JobId=6 JobState=CANCELLED Reason=None Restarts=0", "cancelled: saved, and not requeued"),
        ("JobId=6 JobState=PENDING Reason=BeginTime Restarts=1", "Slurm requeues it by itself: restart 1"),
    ],
)
def test_what_was_cancelled_or_is_requeued_already_is_left_alone(requeue, shown, words):
    calls, said = requeue(shown)
    assert calls == ["--oneliner show job 6"]
    assert words in said


@pytest.mark.parametrize("why", ["Reason=TimeLimit", "Reason=None PreemptTime=2026-01-01T00:00:00"])
def test_a_time_limit_and_a_preemption_are_not_a_cancellation(requeue, why):
    calls, said = requeue(f"JobId=6 JobState=COMPLETING {why} Restarts=0")
    assert calls[-1] == "requeue 6"
    assert "saved and requeued" in said


def test_no_more_often_than_the_profile_allows(requeue):
    calls, said = requeue(RUNNING, SLURM_RESTART_COUNT="3", SAE_GENOMICS_MAX_REQUEUES="3")
    assert calls == []
    assert "the most the profile allows (max_requeues: 3)" in said


def test_the_command_to_go_on_is_the_runs_own(requeue):
    resubmit = "bash slurm/resubmit_failed.sh configs/demo.yaml --set run.name=x"
    _, said = requeue(RUNNING, SLURM_RESTART_COUNT="20", SAE_GENOMICS_RESUBMIT=resubmit)
    assert f"go on with {resubmit}\n" in said
