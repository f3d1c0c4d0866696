"""What is done, running, queued and failed, and the command to type next: from the artifacts, heartbeats and one squeue call."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sae_genomics.atomic import UNFINISHED, read_json
from sae_genomics.cluster import attempts
from sae_genomics.cluster.plan import StagePlan, make_plan
from sae_genomics.cluster.queue import settings_key
from sae_genomics.cluster.reasons import Evidence
from sae_genomics.cluster.wording import unit_list
from sae_genomics.commands import command, config_words, path_words
from sae_genomics.config import load_config
from sae_genomics.data.disk import size_text
from sae_genomics.errors import EXIT_DONE
from sae_genomics.leftovers import SILENT_AFTER, bytes_of, find_leftovers
from sae_genomics.processes import process_start
from sae_genomics.progress import duration
from sae_genomics.run import Run, State
from sae_genomics.stage import Stage

STATES = ("done", "running", "queued", "failed", "missing", "stale")
WATCH_SECONDS = 30.0  # squeue is asked no more often than this
OTHER_SETTINGS = "with other settings than these"
_SHOWN = 20


@dataclass(frozen=True)
class TaskStatus:
    """One task. state: one of STATES; note: progress, reason or cause, as a clause; job: Slurm's id of what it runs in or waits as."""

    stage: str
    task: int
    unit: str
    state: str
    note: str = ""
    job: str = ""
    kind: str = ""
    log: str = ""
    attempts: int = 0


def status(config: Path, overrides: Sequence[str] = (), *, watch: bool = False, as_json: bool = False) -> int:
    """Print the table; with `watch`, again and again until nothing is running or queued. Returns an exit code."""
    while True:
        # Everything is looked at afresh: the config may change under a watch, and so do the files.
        run = Run(load_config(config, overrides), config, overrides)
        evidence = Evidence.gather(run)
        tasks = task_statuses(run, make_plan(run), evidence)
        if as_json:
            print(
                json.dumps(
                    {
                        "run": run.name,
                        "scheduler_problem": evidence.problem,
                        "tasks": [asdict(t) for t in tasks],
                        "leftover": {
                            "files": len(leftovers := find_leftovers(run)),
                            "bytes": sum(map(bytes_of, leftovers)),
                        },
                    },
                    indent=1,
                )
            )
        else:
            if watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            print(render(run, tasks, evidence), flush=True)
        if not watch or not any(task.state in ("running", "queued") for task in tasks):
            return EXIT_DONE
        time.sleep(WATCH_SECONDS)
        print()


def task_statuses(run: Run, plans: Sequence[StagePlan], evidence: Evidence) -> list[TaskStatus]:
    """Every task of the run, in the pipeline's order."""
    tried = {path.stem for path in (run.logs / "attempts").glob("*.json")}
    return [
        _task_status(run, plan.stage, task, state, evidence, tried)
        for plan in plans
        for task, state in enumerate(plan.states)
    ]


def _task_status(run: Run, stage: Stage, task: int, state: State, evidence: Evidence, tried: set[str]) -> TaskStatus:
    unit = run.unit_key(stage, task)
    if state.done:
        return TaskStatus(stage.name, task, unit, "done")
    entry = evidence.living.get((stage.name, task))
    other = f", {OTHER_SETTINGS}" if entry is not None and entry.settings != settings_key(run, stage) else ""
    if entry is not None and entry.state == "PENDING":
        again = f", restart {entry.restarts}" if entry.restarts else ""
        return TaskStatus(stage.name, task, unit, "queued", f"{entry.reason}{again}{other}", entry.job)
    if entry is not None:
        where = f"{entry.element} on {entry.node}, {entry.used} of {entry.limit}"
        again = f", restart {entry.restarts}" if entry.restarts else ""
        status = "" if entry.state == "RUNNING" else f"{entry.state.lower()}, "
        return TaskStatus(
            stage.name,
            task,
            unit,
            "running",
            f"{status}{where}{again}{other}  {_progress(run, stage, task)}".rstrip(),
            entry.job,
        )
    if f"{stage.name}_{unit}" in tried and _runs_without_slurm(run, stage, task, evidence):
        return TaskStatus(stage.name, task, unit, "running", _progress(run, stage, task))
    known = f"{stage.name}_{unit}" in tried or (stage.name, task) in evidence.last_job
    reason = evidence.reason(stage, task) if known and not stage.partial else None
    if reason is not None and not (state.status == "stale" and reason.kind == "FAILED" and not reason.text):
        log = str(reason.log) if reason.log else ""
        return TaskStatus(
            stage.name, task, unit, "failed", reason.text, kind=reason.kind, log=log, attempts=reason.attempts
        )
    return TaskStatus(stage.name, task, unit, state.status, state.why)


def _runs_without_slurm(run: Run, stage: Stage, task: int, evidence: Evidence) -> bool:
    """Whether a task's open attempt is alive: its process on this host, else a fresh heartbeat where Slurm cannot be asked."""
    last = attempts.attempts_of(run, stage, task)[-1:]
    if not last or last[0].ended is not None:
        return False
    if last[0].host == socket.gethostname():
        return process_start(last[0].pid) is not None
    beat = read_json(run.heartbeat_file(stage, task))
    fresh = isinstance(beat, dict) and time.time() - float(beat.get("time", 0)) < SILENT_AFTER
    return fresh and (bool(evidence.problem) or last[0].job is None)


def _progress(run: Run, stage: Stage, task: int) -> str:
    """`1,200/5,000 tokens, 80.0 tokens/s, 45 s left` from the task's own heartbeat; empty when it has not said anything yet."""
    beat = read_json(run.heartbeat_file(stage, task))
    if not isinstance(beat, dict):
        return ""
    total = f"/{beat['total']:,.0f}" if beat.get("total") else ""
    parts = [f"{beat['done']:,.0f}{total} {beat['unit']}", f"{beat['rate']:,.1f} {beat['unit']}/s"]
    age = time.time() - float(beat["time"])
    if age > SILENT_AFTER:
        parts.append(f"no sign of life for {duration(age)}")
    elif beat.get("seconds_left") is not None:
        parts.append(f"{duration(max(beat['seconds_left'] - age, 0))} left")
    if beat.get("note"):
        parts.append(str(beat["note"]))
    return ", ".join(parts)


# --- for people ---


def render(run: Run, tasks: Sequence[TaskStatus], evidence: Evidence) -> str:
    """The table, what is running, queued and failed, and what to type next."""
    lines = [f"run {run.name}  {config_words(run)}  {time.strftime('%Y-%m-%d %H:%M:%S')}", *_table(tasks)]
    running = [task for task in tasks if task.state == "running"]
    if running:
        lines += ["", "running"] + [
            f"  {task.stage} {task.unit}: {task.note or 'starting'}" for task in running[:_SHOWN]
        ]
        lines += [f"  and {len(running) - _SHOWN} more"] if len(running) > _SHOWN else []
    for title, state in (("queued", "queued"), ("failed", "failed"), ("stale", "stale")):
        groups = _grouped([task for task in tasks if task.state == state])
        lines += ["", title, *groups[:_SHOWN]] if groups else []
        lines += [f"  and {len(groups) - _SHOWN} more groups; --json lists them all"] if len(groups) > _SHOWN else []
    if evidence.problem:
        lines += ["", f"squeue gives no answer ({evidence.problem}): running and queued are told from heartbeats alone"]
    for paragraph in (_leftovers(run), _kept_activations(run)):
        lines += ["", paragraph] if paragraph else []
    jobs = sorted({task.job for task in tasks if OTHER_SETTINGS in task.note}, key=int)
    if jobs:
        lines += [
            "",
            f"jobs {' '.join(jobs)} were submitted {OTHER_SETTINGS}: what they make will be stale here; type the config and "
            f"--set as they were then, or scancel {' '.join(jobs)}",
        ]
    return "\n".join([*lines, "", f"next: {next_step(run, tasks)}"])


def _kept_activations(run: Run) -> str:
    """What interrupted shards keep for their next attempts; empty where there is nothing."""
    kept = find_leftovers(run, UNFINISHED)
    return (
        f"kept: {size_text(sum(map(bytes_of, kept)))} of interrupted shards; the next attempts go on from them"
        if kept
        else ""
    )


def _leftovers(run: Run) -> str:
    """What killed attempts left on the disk; empty where there is nothing."""
    leftovers = find_leftovers(run)
    if not leftovers:
        return ""
    size = size_text(sum(map(bytes_of, leftovers)))
    count = f"{len(leftovers)} partial file{'s'[: len(leftovers) > 1]}"
    return f"leftover: {count} of processes that have ended, {size}; the next attempts at their tasks remove them"


def _table(tasks: Sequence[TaskStatus]) -> list[str]:
    rows = [["stage", "tasks", *STATES]]
    for stage in dict.fromkeys(task.stage for task in tasks):
        counts = Counter(task.state for task in tasks if task.stage == stage)
        rows.append([stage, str(sum(counts.values())), *(str(counts[state] or "") for state in STATES)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]  # fmt: skip


def _grouped(tasks: Sequence[TaskStatus]) -> list[str]:
    """One line for tasks of a stage that share job and note."""
    groups: dict[tuple[str, str, str], list[TaskStatus]] = {}
    for task in tasks:
        groups.setdefault((task.stage, task.job, task.note), []).append(task)
    lines = []
    for (stage, job, note), members in groups.items():
        tried = max(task.attempts for task in members)
        extra = [f"job {job}" if job else "", note, f"{tried} attempts" if tried > 1 else ""]
        lines.append(f"  {stage} {unit_list([task.unit for task in members])}: {', '.join(filter(None, extra))}")
        logs = [task.log for task in members if task.log]
        if logs:
            lines[-1] += f"\n    {path_words(logs[0])}{f' and {len(logs) - 1} more logs' if len(logs) > 1 else ''}"
    return lines


def next_step(run: Run, tasks: Sequence[TaskStatus]) -> str:
    """The command that gets the run further."""
    counts = Counter(task.state for task in tasks)
    open_tasks = counts["failed"] + counts["missing"] + counts["stale"]
    if not open_tasks and not counts["running"] and not counts["queued"]:
        return f"read {path_words(run.report_file)}"
    if not open_tasks or (counts["running"] + counts["queued"] and not counts["failed"]):
        return command("status", run, "--watch")
    if counts["failed"] and run.jobs_file.exists():
        return command("resubmit", run)
    return command("pipeline", run)


def facts(tasks: Sequence[TaskStatus]) -> dict[str, Any]:
    """Counts by state, for tests and callers that want no text."""
    return dict(Counter(task.state for task in tasks))
