"""Runs one task: inputs checked, leftovers removed, the stage called, its manifest written."""

from __future__ import annotations

import ctypes
import importlib.metadata
import math
import os
import platform
import resource
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from sae_genomics import __version__
from sae_genomics.at_once import beside_others, out_of_memory, run_at_once, wait_until_alone
from sae_genomics.atomic import remove_empty_folders
from sae_genomics.errors import EXIT_BUG, EXIT_DONE, EXIT_USER, DamagedArtifact, UserError, one_line
from sae_genomics.leftovers import remove_leftovers_of
from sae_genomics.progress import duration, say, stop_point
from sae_genomics.run import Run
from sae_genomics.stages import STAGES, Stage, needed_tasks

_REPORTED_PACKAGES = ("torch", "numpy", "anndata", "sae-lens", "h5py", "scipy", "scanpy")


def execute(run: Run, stage: Stage, task: int) -> bool:
    """Run a task unless it is done. Returns whether it ran.

    Raises UserError when an input is missing or the task number is out of range; whatever the stage raises passes through.
    """
    n_tasks = run.n_tasks(stage)
    if not 0 <= task < n_tasks:
        raise UserError(f"--task {task}: stage {stage.name} of run {run.name} has {n_tasks} tasks, 0 to {n_tasks - 1}")
    state = run.state(stage, task)
    label = run.label(stage, task)
    if state.done:
        say(f"{label}: done already")
        return False
    if not stage.partial:
        _check_inputs(run, stage, task)
    stop_point()
    if state.status == "stale":
        say(f"{label}: stale ({state.why}); it is made again")
    run.manifest_file(stage, task).unlink(missing_ok=True)
    remove_leftovers_of(run, stage, task)
    give_back_memory()
    started, clock = datetime.now(timezone.utc), time.monotonic()
    say(f"{label}: started")
    _call(run, stage, task)
    seconds = time.monotonic() - clock
    run.write_manifest(
        stage,
        task,
        {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "peak_memory_bytes": peak_memory(),
            "host": socket.gethostname(),
            "job": os.environ.get("SLURM_JOB_ID"),
            "versions": versions(),
        },
    )
    run.heartbeat_file(stage, task).unlink(missing_ok=True)
    remove_leftovers_of(run, stage, task)  # of attempts on other hosts that seemed alive when this one began
    say(f"{label}: done in {duration(seconds)}")
    return True


_made_at: dict[Path, float] = {}  # inputs that this process made again, and when (time.monotonic)


def _call(run: Run, stage: Stage, task: int) -> None:
    """Do the task's work, and begin it anew while that helps.

    An input that turns out damaged is made again. What lacked the accelerator's memory beside other tasks is tried once more without
    them. Both wait for tasks beside this one to end: they may read the same input, or need the memory.
    """
    made_again: set[Path] = set()
    alone = False
    while True:
        began, damaged, owner = time.monotonic(), None, None
        try:
            return stage.call(run, task)
        except DamagedArtifact as damage:
            owner = None if damage.path in made_again else _maker(run, stage, damage.path)
            if owner is None:
                raise
            damaged, what = damage.path, str(damage)
            if beside_others():
                say(f"{run.label(stage, task)}: {what}; waits for the others to end")
        except RuntimeError as error:
            if alone or not beside_others() or not out_of_memory(error):
                raise
            alone = True
            say(
                f"{run.label(stage, task)}: the memory does not hold it beside the others; "
                "it is tried again alone when they have ended"
            )
        wait_until_alone()
        if damaged is not None and owner is not None:
            made_again.add(damaged)
            if _made_at.get(damaged, -math.inf) < began:  # else another task found it damaged too, and was first
                say(f"{what}; it is made again")
                damaged.unlink(missing_ok=True)
                execute(run, *owner)
                _made_at[damaged] = time.monotonic()


def _maker(run: Run, stage: Stage, path: Path | None) -> tuple[Stage, int] | None:
    """The task of an earlier stage that leaves `path`."""
    for earlier in STAGES[: STAGES.index(stage)] if stage in STAGES else ():
        for task in range(run.n_tasks(earlier)):
            if path in earlier.files(run, task):
                return earlier, task
    return None


def execute_all(run: Run, stage: Stage, tasks: Sequence[int]) -> int:
    """Run tasks one after the other, or several at once; a failing one stops only itself. Returns the exit code of the worst.

    Interrupted passes through: what asked to stop meant all of them.
    """

    def work(task: int) -> int:
        try:
            execute(run, stage, task)
            return EXIT_DONE
        except (
            UserError,
            DamagedArtifact,
            OSError,
            MemoryError,
            ArithmeticError,
            RuntimeError,
            ValueError,
            LookupError,
        ) as error:
            return report_failure(run, stage, task, error)

    failures = set(run_at_once(run, stage, tasks, work).values()) - {EXIT_DONE}
    return EXIT_BUG if EXIT_BUG in failures else max(failures, default=EXIT_DONE)


def report_failure(run: Run, stage: Stage, task: int, error: Exception) -> int:
    """Say in one line (a bug: with its traceback) why a task failed; returns its exit code."""
    label = run.label(stage, task)
    run.heartbeat_file(stage, task).unlink(missing_ok=True)
    remove_empty_folders(run.heartbeat_file(stage, task).parent, up_to=run.config.paths.logs)
    line = one_line(error)
    if line is None:
        say("".join(traceback.format_exception(error)).rstrip())
        say(f"error: {label} failed with a bug: {type(error).__name__}: {error}")
        return EXIT_BUG
    say(f"error: {label}: {line}")
    return EXIT_USER


def _check_inputs(run: Run, stage: Stage, task: int) -> None:
    # Of a shard's many files, a layer's task reads its own layer's: looking at all of them, for every layer, takes minutes.
    layer = run.layers[task] if stage.unit == "layer" else None
    for need, each in needed_tasks(run, stage, task):
        state = run.state(need, each, layer=layer)
        if not state.done:
            script = Path("scripts") / f"{need.number:02d}_{need.name}.py"
            config = run.config_file or "CONFIG"
            raise UserError(
                f"stage {stage.name} needs {need.name} {run.unit_key(need, each)}, which is {state.status} ({state.why}); "
                f"run python {script} --config {config} --task {each}"
            )


def give_back_memory() -> None:
    """Let the operating system have the memory that was freed here.

    glibc keeps what lies between things in use, a heap a thread; a process that does many tasks would grow by a little with each.
    Other C libraries do what they do.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    found = {"sae_genomics": __version__, "python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
