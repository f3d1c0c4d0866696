"""Which tasks are not done, why as far as anyone can tell, and what to type."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from sae_genomics.atomic import read_json
from sae_genomics.commands import command
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import stages_of


@dataclass(frozen=True)
class Unfinished:
    """A task that is not done.

    status: missing or stale. why: what the run says of its files.
    waits_for: `stage unit` of a task before it that is not done either; empty when it could run now.
    reason: what is known of its last attempt; empty when nothing is.
    """

    stage: str
    unit: str
    status: str
    why: str
    waits_for: str = ""
    reason: str = ""


def unfinished_tasks(run: Run) -> tuple[list[Unfinished], dict[str, int]]:
    """Every task that is not done, in the pipeline's order, and stage -> number of tasks that are. The report aside."""
    states = {stage.name: run.states(stage) for stage in stages_of(run) if not stage.partial}
    found: list[Unfinished] = []
    for stage in stages_of(run):
        # A stage with other units waits for all tasks of its input: looked up once, not once per task.
        shared = _first_undone(run, stage, states) if stage.unit != "layer" else None
        for task, state in enumerate(states.get(stage.name, [])):
            if state.done:
                continue
            waits_for = shared if shared is not None else _waits_for(run, stage, task, states)
            reason = "" if waits_for else last_attempt(run, stage, task)
            found.append(Unfinished(stage.name, run.unit_key(stage, task), state.status, state.why, waits_for, reason))
    return found, {name: sum(state.done for state in each) for name, each in states.items()}


def _first_undone(run: Run, stage: Stage, states: dict[str, list]) -> str:
    if not states.get(stage.name):
        return ""
    return _waits_for(run, stage, 0, states)


def _waits_for(run: Run, stage: Stage, task: int, states: dict[str, list]) -> str:
    for need, each in stage.needed_tasks(run, task):
        if not states[need.name][each].done:
            return run.label(need, each)
    return ""


# --- why: a further source is a function (run, stage, task) -> one clause, "" when it knows nothing, and an entry in FINDERS ---


def last_attempt(run: Run, stage: Stage, task: int) -> str:
    """What is known of the task's last attempt; "" when nothing is."""
    known = []
    for finder in FINDERS:
        with contextlib.suppress(Exception):  # traces in a form that nobody foresaw must not cost the report
            known.append(finder(run, stage, task))
    return "; ".join(clause for clause in known if clause)


def from_executor(run: Run, stage: Stage, task: int) -> str:
    """How it ended, from whatever runs the tasks of this run, where that knows it."""
    return run.reason_of(stage, task) or ""


def from_heartbeat(run: Run, stage: Stage, task: int) -> str:
    """How far it came, from the heartbeat that a task removes when it ends well."""
    beat = read_json(run.heartbeat_file(stage, task))
    if not isinstance(beat, dict):
        return ""
    when = datetime.fromtimestamp(beat["time"], timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    of = f" of {beat['total']:,.0f}" if beat.get("total") else ""
    return (
        f"last sign of life {when} on {beat.get('host', 'an unknown host')}, at {beat['done']:,.0f}{of} {beat['unit']}"
    )


FINDERS: list[Callable[[Run, Stage, int], str]] = [from_executor, from_heartbeat]


# --- what to type ---


def uses_slurm(run: Run) -> bool:
    """Whether this run's tasks go through Slurm: some were submitted, or this is one of them."""
    return run.jobs_file.exists() or "SLURM_JOB_ID" in os.environ


def resume_command(run: Run) -> str:
    """The command that runs again exactly what is not done."""
    return command("resubmit" if uses_slurm(run) else "pipeline", run)


def grouped(units: list[str]) -> str:
    """`layer_03, shard_0001 to shard_0004` from units in their order."""
    runs: dict[tuple[str, int], list[str]] = defaultdict(list)
    for index, unit in enumerate(units):
        kind, _, number = unit.rpartition("_")
        key = (kind, int(number) - index) if number.isdigit() else (unit, -1 - index)
        runs[key].append(unit)
    return ", ".join(", ".join(each) if len(each) < 3 else f"{each[0]} to {each[-1]}" for each in runs.values())


def by_stage(tasks: list[Unfinished]) -> list[tuple[str, list[Unfinished]]]:
    """Tasks grouped by stage, in order."""
    return [(name, list(group)) for name, group in itertools.groupby(tasks, key=lambda task: task.stage)]
