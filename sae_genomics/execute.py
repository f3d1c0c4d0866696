"""Runs one task: inputs checked, leftovers removed, the stage called, its manifest written."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import resource
import socket
import sys
import time
import traceback
from collections import Counter
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from sae_genomics import __version__, content
from sae_genomics.at_once import beside_others, out_of_memory, wait_until_alone
from sae_genomics.atomic import remove_empty_folders
from sae_genomics.claims import claim, release, wait_for
from sae_genomics.commands import stage_command
from sae_genomics.errors import EXIT_BUG, EXIT_USER, DamagedArtifact, UserError, not_as_written, one_line
from sae_genomics.leftovers import remove_leftovers_of
from sae_genomics.progress import duration, say, stop_point
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import stages_of

_TRIES = 2  # to read a damaged input: another process may make it again first
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
    run.manifests.keep_finished(stage, task)
    remove_leftovers_of(run, stage, task)
    give_back_memory()
    started, clock = datetime.now(timezone.utc), time.monotonic()
    say(f"{label}: started")
    made_from = _call(run, stage, task)
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
        made_from,
    )
    run.heartbeat_file(stage, task).unlink(missing_ok=True)
    remove_leftovers_of(run, stage, task)  # of attempts on other hosts that seemed alive when this one began
    say(f"{label}: done in {duration(seconds)}")
    return True


def _call(run: Run, stage: Stage, task: int) -> dict[str, str | None]:
    """Do the task's work, and begin it anew while that helps. Returns what it was made from (`Contents.read_by`).

    An input that turns out damaged is made again. What lacked the accelerator's memory beside other tasks is tried once more without
    them. Both wait for tasks beside this one to end: they may read the same input, or need the memory.
    """
    met: Counter[Path] = Counter()  # damaged inputs
    alone = False
    while True:
        damaged, owner = None, None
        try:
            made_from = run.contents.read_by(stage, task)
            if stage.partial:
                for path in run.manifests.distrust_damaged(stage, task):
                    say(f"{not_as_written(path)}; the same command makes it again")
            else:
                run.manifests.verify_inputs(stage, task)
            stage.call(run, task)
            return made_from
        except DamagedArtifact as damage:
            owner = _maker(run, stage, damage.path) if met[damage.path] < _TRIES else None
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
            met[damaged] += 1
            _make_again(run, owner, damaged, what, surely=met[damaged] == _TRIES)


def _make_again(run: Run, owner: tuple[Stage, int], damaged: Path, what: str, surely: bool) -> None:
    """Have a damaged file's own stage make it again. Where other processes met it too, one does it and the others wait.

    surely: even where the file is just as it was written, so that this was not what is wrong with it.
    """
    claimed, sign, label = _claim_file(run, *owner), run.heartbeat_file(*owner), run.label(*owner)
    if not claim(claimed, sign, label):
        return
    try:
        entry = run.manifests.recorded(*owner, damaged) or {}
        is_whole = damaged == run.manifest_file(*owner) or (
            "hash" in entry and damaged.exists() and content.is_whole(damaged, entry)
        )
        if not surely and run.state(*owner).done and is_whole:
            return  # another process was first
        say(f"{what}; it is made again")
        damaged.unlink(missing_ok=True)
        execute(run, *owner)
    finally:
        release(claimed, up_to=run.config.paths.logs)


def _claim_file(run: Run, stage: Stage, task: int) -> Path:
    return run.logs / "claims" / f"{stage.name}_{run.unit_key(stage, task)}.json"


def _maker(run: Run, stage: Stage, path: Path) -> tuple[Stage, int] | None:
    """The task of an earlier stage that leaves `path`, a file or its manifest."""
    for earlier in [each for each in stages_of(run) if each.number < stage.number]:
        for task in range(run.n_tasks(earlier)):
            if path == run.manifest_file(earlier, task) or path in earlier.files(run, task):
                return earlier, task
    return None


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
    layer = stage.layer_of(run, task)
    for need, each in stage.needed_tasks(run, task):
        state = run.state(need, each, layer=layer)
        if not state.done:
            wait_for(_claim_file(run, need, each), run.heartbeat_file(need, each), run.label(need, each))
            state = run.state(need, each, layer=layer)
        if state.damaged is not None:
            wait_until_alone()
            _make_again(run, (need, each), state.damaged, f"{state.damaged.parent / state.why}", surely=False)
            state = run.state(need, each, layer=layer)
        if not state.done:
            raise UserError(
                f"stage {stage.name} needs {need.name} {run.unit_key(need, each)}, which is {state.status} ({state.why}); "
                f"run {stage_command(need, run, each)}"
            )


def give_back_memory() -> None:
    """Let the operating system have the memory that was freed here.

    glibc keeps what lies between things in use, one heap per thread; a process that does many tasks would grow by a little with each.
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
