"""Temporary files of attempts that were killed: found, counted, and removed by the next attempt at their task.

A process of this host is dead or alive. Of one on another host, these are signs that it has ended:

- the task's attempts say so (`logs/<run>/attempts`),
- its attempt and the one at work now are both Slurm's, which runs one attempt at a task at a time,
- neither its heartbeat nor its file has changed for `SILENT_AFTER` seconds.

Where a sign deceives, the other process cannot give its file its name any more, and says so in one line (`atomic.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics.atomic import PREFIX, Partial, partial_named, read_json, remove_leftovers, temporary_folder

if TYPE_CHECKING:
    from sae_genomics.run import Run
    from sae_genomics.stage import Stage

SILENT_AFTER = 300.0


def attempts_file(run: Run, stage: Stage, task: int) -> Path:
    """Where `cluster/attempts.py` notes when, where and how each attempt at a task ended."""
    return run.logs / "attempts" / f"{stage.name}_{run.unit_key(stage, task)}.json"


def scratch_path(run: Run, stage: Stage, task: int) -> Path:
    """What names a task's scratch folders; each attempt adds its process (`scratch_folder`)."""
    return run.checkpoints / "scratch" / f"{stage.name}_{run.unit_key(stage, task)}"


@contextmanager
def scratch_folder(run: Run, stage: Stage, task: int) -> Iterator[Path]:
    """An empty folder for one attempt's scratch data, on the disk that is for large files; it is removed in the end."""
    path = scratch_path(run, stage, task)
    with temporary_folder(path.parent, path.name) as folder:
        yield folder


def remove_leftovers_of(run: Run, stage: Stage, task: int) -> None:
    """Remove what killed attempts at this task left. Call while working on it.

    The task's are the files that it must leave, its notes, its scratch folders, and whatever stands in a folder that bears its unit's name.
    """
    files = [*stage.files(run, task), run.manifest_file(stage, task), run.heartbeat_file(stage, task)]
    files.append(scratch_path(run, stage, task))
    names = {path.name for path in [*files, attempts_file(run, stage, task)]}
    unit = run.unit_key(stage, task)
    folders = {path.parent for path in [*files, run.report_file]}

    def ended(partial: Partial) -> bool:
        is_mine = partial.final in names or unit in (partial.path.parent.name, partial.path.parent.parent.name)
        return is_mine and has_ended(run, stage, task, partial)

    below = {inner for folder in folders if folder.name == unit for inner in _folders_in(folder)}
    for folder in folders | below:
        remove_leftovers(folder, ended)
    if stage.partial:  # the last task of a run: nobody else comes by what is left
        for partial in find_leftovers(run):
            partial.remove()


def has_ended(run: Run, stage: Stage, task: int, partial: Partial) -> bool:
    """Whether the process on another host that wrote a file of this task works on it no more."""
    noted = read_json(attempts_file(run, stage, task))
    tries = [
        each
        for each in (noted if isinstance(noted, list) else [])
        if isinstance(each, dict) and (each.get("host"), each.get("pid")) == (partial.host, partial.pid)
    ]
    if tries and tries[-1].get("ended") is not None:
        return True
    if tries and tries[-1].get("job") and "SLURM_JOB_ID" in os.environ:
        return True
    return _silent(partial, [run.heartbeat_file(stage, task)])


def find_leftovers(run: Run, prefix: str = PREFIX) -> list[Partial]:
    """Every temporary file and folder of the run whose process has ended, or has been silent for long."""
    heartbeats = list((run.logs / "heartbeats").glob("*.json"))
    return [
        partial
        for root in (run.checkpoints, run.results, run.logs)
        for partial in _partials_below(root, prefix)
        if (partial.is_of_a_dead_process if partial.is_of_this_host else _silent(partial, heartbeats))
    ]


def bytes_of(partial: Partial) -> int:
    """Bytes that a temporary file, or a folder of them, takes."""
    if not partial.path.is_dir():
        try:
            return partial.path.stat().st_size
        except OSError:
            return 0
    return sum(path.stat().st_size for path in partial.path.rglob("*") if path.is_file())


def _silent(partial: Partial, heartbeats: list[Path]) -> bool:
    if time.time() - partial.modified() < SILENT_AFTER:
        return False
    for file in heartbeats:
        beat: Any = read_json(file)
        is_its = isinstance(beat, dict) and (beat.get("host"), beat.get("pid")) == (partial.host, partial.pid)
        if is_its and time.time() - float(beat.get("time", 0)) < SILENT_AFTER:
            return False
    return True


def _partials_below(root: Path, prefix: str) -> Iterator[Partial]:
    for parent, folders, files in os.walk(root):
        for name in [*folders, *files]:
            if name.startswith(prefix) and (partial := partial_named(Path(parent) / name, prefix)) is not None:
                yield partial
        folders[:] = [name for name in folders if not name.startswith(PREFIX)]


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
