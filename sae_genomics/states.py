"""Which tasks of a run are done, missing or stale, and why.

A task is done when every file it must leave is there as its manifest records it, when its fingerprint is the one that today's config asks for,
and when it was made from the very files that the stages before it have today. So a status can be told without a scheduler.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sae_genomics import content
from sae_genomics.errors import DamagedArtifact, not_as_written
from sae_genomics.file_keys import FILE_KEYS, change

if TYPE_CHECKING:
    from sae_genomics.run import Run
    from sae_genomics.stage import Stage

Status = Literal["done", "missing", "stale"]
_PROBED = 16  # tasks that tell how long a look at one takes
_SLOW_TASK_SECONDS = 0.005
_VERIFIED_BYTES = 8 << 30  # most that one process reads to tell a copied file from a changed one


@dataclass(frozen=True)
class State:
    """Whether a task is done, and if not, why (one clause for a reader).

    damaged: the file that is there and does not hold what was written.
    """

    status: Status
    why: str = ""
    damaged: Path | None = None

    @property
    def done(self) -> bool:
        return self.status == "done"


class States:
    """Of one run's tasks."""

    def __init__(self, run: Run):
        self._run = run
        self._verified: dict[tuple[str, int], bool] = {}  # (file, its time) -> whether it is as recorded
        self._verified_bytes = 0

    def of_stage(self, stage: Stage) -> list[State]:
        """Every task's state. Where the file system is far away, many tasks are looked at side by side."""
        tasks = range(self._run.n_tasks(stage))
        started = time.perf_counter()
        first = [self.of_task(stage, task) for task in tasks[:_PROBED]]
        if len(tasks) > _PROBED and time.perf_counter() - started > _SLOW_TASK_SECONDS * _PROBED:
            with ThreadPoolExecutor(16) as pool:
                return first + list(pool.map(lambda task: self.of_task(stage, task), tasks[_PROBED:]))
        return first + [self.of_task(stage, task) for task in tasks[_PROBED:]]

    def of_task(self, stage: Stage, task: int, layer: int | None = None) -> State:
        """done, missing or stale, from the manifest and the files themselves.

        layer: look only at the files of this layer and at those that belong to none; default: all of them.
        """
        try:
            manifest = self._run.manifests.read(stage, task, strict=True)
        except DamagedArtifact as damage:
            return State("missing", not_as_written(damage.path.name), damaged=damage.path)
        recorded = manifest.get("files", {})
        if not recorded:
            return State("missing", "not finished yet")
        # A file's fingerprint follows from the stage's and from which file it is; only a partial stage's parts may vary.
        same_base = (
            not stage.partial and not stage.varying and manifest.get("base") == self._run.base_fingerprint(stage)
        )
        stale = False
        prefix = f"{self._run.paths.root_of(stage)}{os.sep}"
        for path, parts in stage.files(self._run, task).items():
            if layer is not None and parts.get("layer", layer) != layer:
                continue
            text = os.fspath(path)
            inside = text.startswith(prefix)
            entry = recorded.get(text[len(prefix) :] if inside else self._run.paths.recorded_name(stage, path))
            if entry is None and stage.is_later(path) and not manifest.get("unfinished"):
                continue
            try:
                file = os.stat(text)
            except OSError:
                return State("missing", f"{path.name} is not there")
            if entry is None:
                return State("missing", f"{path.name} was not finished")
            if entry["size"] != file.st_size:
                size = f"{file.st_size:,} bytes instead of {entry['size']:,}"
                return State("missing", f"{path.name} is damaged: {size}", damaged=path)
            if entry.get("mtime_ns", file.st_mtime_ns) != file.st_mtime_ns and not self._is_whole(path, file, entry):
                return State("missing", not_as_written(path.name), damaged=path)
            stale = stale or not (same_base or entry["fingerprint"] == self._run.fingerprint(stage, **parts))
        if stale:
            return State("stale", self._why_stale(stage, manifest))
        remade = self._run.manifests.remade_inputs(stage, task, manifest)
        return State("stale", f"{' and '.join(remade)} came out different since") if remade else State("done")

    def _is_whole(self, path: Path, file: os.stat_result, entry: dict[str, Any]) -> bool:
        """Whether a file that was touched, copied or changed since it was recorded still holds what was written.

        One process reads so many bytes for this and no more: a copied run of terabytes is believed, and verified when it is read.
        """
        key = (os.fspath(path), file.st_mtime_ns)
        if key not in self._verified:
            if self._verified_bytes + file.st_size > _VERIFIED_BYTES:
                return True
            self._verified_bytes += file.st_size
            self._verified[key] = content.is_whole(path, entry)
        return self._verified[key]

    def _why_stale(self, stage: Stage, manifest: dict[str, Any]) -> str:
        """The first causes a reader can act on: changed keys, then changed inputs."""
        if manifest.get("version") != stage.version:
            return "written by another version of this stage"
        then, now = manifest.get("config", {}), self._run.config_values(stage) | self._run.values(stage.varying)
        now = {**{key: [] for key in then if key in FILE_KEYS}, **now}  # files that are no longer there
        # What only some files depend on may have come after the task was done: then it is not what makes the others stale.
        known = [key for key in now if key in then or key not in stage.varying]
        changed = [key for key in known if then.get(key, ...) != json.loads(json.dumps(now[key]))]
        if changed:
            return "; ".join(
                f"{key}: {change(then.get(key), now[key])}"
                if key in FILE_KEYS
                else f"{key} was {then.get(key)}, is {now[key]}"
                for key in changed[:3]
            )
        for kind, content_hash in manifest.get("identities", {}).items():
            if content_hash != self._run.content_hashes.get(kind):
                return f"the {kind} changed"
        then = manifest.get("inputs", {})
        for need in stage.needs_in(self._run):
            if need.name in then and then[need.name] != self._run.base_fingerprint(need):
                return f"{need.name} is stale or was redone"
        return "its inputs changed"
