"""Every attempt at a task leaves a line: when, where, and how it ended. It is what a status and the report name reasons from.

`logs/<run>/attempts/<stage>_<unit>.json` is a list of attempts, oldest first. An attempt without an end is still at work,
or was killed so hard that it could not say so. Nothing here decides whether a task is done: the artifacts do.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

from sae_genomics.at_once import run_at_once
from sae_genomics.atomic import read_json, remove_leftovers, write_json
from sae_genomics.errors import EXIT_BUG, EXIT_DONE, EXIT_REQUEUE, Interrupted, one_line
from sae_genomics.execute import execute, report_failure
from sae_genomics.leftovers import attempts_file
from sae_genomics.run import Run
from sae_genomics.stage import Stage

KEPT = 20
_TRACEBACK = 8192  # characters of a traceback that are kept


@dataclass(frozen=True)
class Attempt:
    """One try at one task.

    started, ended: seconds since the epoch; ended is None while it runs, and when it was killed.
    outcome: done | failed | interrupted; None like `ended`.
    reason: one line for a reader, where it failed. traceback: of a bug, as in the log.
    job: Slurm's id as sacct prints it (`41_3`), None without Slurm.
    """

    started: float
    host: str
    pid: int
    job: str | None = None
    ended: float | None = None
    outcome: str | None = None
    code: int | None = None
    reason: str = ""
    traceback: str = ""


def attempts_of(run: Run, stage: Stage, task: int) -> list[Attempt]:
    """The task's attempts, oldest first; empty when it was never tried."""
    return [_attempt(each) for each in read_json(attempts_file(run, stage, task)) or [] if isinstance(each, dict)]


def begin(run: Run, stage: Stage, task: int) -> None:
    """Note that an attempt starts now, in this process. A full disk is not reported here, but by the task's own writing."""
    attempt = Attempt(time.time(), socket.gethostname(), os.getpid(), slurm_job())
    with contextlib.suppress(OSError):
        remove_leftovers(attempts_file(run, stage, task).parent)
        _write(run, stage, task, [*attempts_of(run, stage, task), attempt])


def end(run: Run, stage: Stage, task: int, outcome: str, code: int = 0, reason: str = "", traceback: str = "") -> None:
    """Note how the attempt that this process began has ended."""
    attempts = attempts_of(run, stage, task)
    if attempts and (attempts[-1].host, attempts[-1].pid) == (socket.gethostname(), os.getpid()):
        last = replace(attempts[-1], ended=time.time(), outcome=outcome, code=code, reason=reason, traceback=traceback)
        with contextlib.suppress(OSError):
            _write(run, stage, task, [*attempts[:-1], last])


def run_task(run: Run, stage: Stage, task: int, noted: bool = True) -> int:
    """Run one task, noting the attempt unless it is done already; returns its exit code. Raises Interrupted."""
    noted = noted and not run.state(stage, task).done
    if noted:
        begin(run, stage, task)
    try:
        execute(run, stage, task)
    except Interrupted:
        if noted:
            end(run, stage, task, "interrupted", EXIT_REQUEUE)
        raise
    except Exception as error:
        code = report_failure(run, stage, task, error)
        if noted:
            told = "".join(traceback.format_exception(error))[-_TRACEBACK:] if code == EXIT_BUG else ""
            end(run, stage, task, "failed", code, reason_of(error), told)
        return code
    if noted:
        end(run, stage, task, "done")
    return EXIT_DONE


def run_tasks(run: Run, stage: Stage, tasks: Sequence[int]) -> dict[int, int]:
    """Run tasks one after the other, or several at once; returns task to exit code. A failing one stops only itself.

    Interrupted passes through: what asked to stop meant all of them.
    """
    # A first stage that refuses its input leaves nothing behind, a note of the attempt included.
    return run_at_once(run, stage, tasks, partial(run_task, run, stage, noted=bool(stage.needs)))


def why(attempt: Attempt) -> str:
    """The attempt's end in one short line."""
    if attempt.outcome is None:
        return f"killed, or still at work, on {attempt.host}"
    if attempt.outcome == "interrupted":
        return "stopped by a signal after saving"
    return attempt.reason or f"exit code {attempt.code}"


def reason_of(error: BaseException) -> str:
    """One line that says what an exception was."""
    line = one_line(error) or f"{type(error).__name__}: {error}"
    return " ".join(line.split())[:500]


def slurm_job() -> str | None:
    """This process' job as Slurm names it: `41`, or `41_3` within an array."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def _attempt(values: dict[str, Any]) -> Attempt:
    known = {field.name for field in fields(Attempt)}
    return Attempt(**{"started": 0.0, "host": "?", "pid": 0, **{key: values[key] for key in values if key in known}})


def _write(run: Run, stage: Stage, task: int, attempts: list[Attempt]) -> None:
    write_json(attempts_file(run, stage, task), [asdict(attempt) for attempt in attempts[-KEPT:]])
