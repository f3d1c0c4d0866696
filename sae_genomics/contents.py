"""What a run's finished tasks hold today, told from their manifests, and whether a later task was made from just that.

A manifest records the content hash of each file, and for each stage that its task reads one token: a hash over the content hashes of the files it
read. A task whose recorded token differs from today's was made from other files. Settings do not matter here: fingerprints compare those.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics.checked_json import read_if_whole
from sae_genomics.hashes import hash_values

if TYPE_CHECKING:
    from sae_genomics.run import Run
    from sae_genomics.stage import Stage

Digests = dict[int | None, str]  # layer (None: files of no layer) -> hash of the content hashes of its files
_SETTLED_NS = 2_000_000_000  # a folder's time has steps: within one, a second change does not show
_ALL = -1  # the key of the digest over all files, those that no later stage reads included


class Contents:
    """Remembers what manifests say, and reads again those that changed."""

    def __init__(self, run: Run):
        self._run = run
        self._folders: dict[str, int] = {}  # stage -> time of its folder of manifests when it was read
        self._digests: dict[str, dict[str, tuple[tuple[int, int, int], Digests | None]]] = defaultdict(dict)
        self._tokens: dict[tuple[str, int | None, int | None], str | None] = {}

    def read_by(self, stage: Stage, task: int) -> dict[str, str | None]:
        """For each stage that `stage` reads, a token of the files that this task reads; None where it is not known.

        It is not known where a manifest is missing, or was written by a version that recorded no content.
        """
        layer = stage.layer_of(self._run, task)
        return {source.name: self._token(source, layer, task) for source in stage.reads_in(self._run)}

    def of_task(self, stage: Stage, task: int) -> str | None:
        """A token of all files of one task."""
        digests = self._task(stage, task)
        return digests.get(_ALL) if digests else None

    def _token(self, source: Stage, layer: int | None, task: int) -> str | None:
        """Over the same layer's task of a layer stage, else over all tasks: their files of `layer` and of no layer."""
        self._refresh(source)
        only = task if source.unit == "layer" and layer is not None else None
        key = (source.name, layer, only)
        if key not in self._tokens:
            tasks = range(self._run.n_tasks(source)) if only is None else [only]
            known = self._digests[source.name]
            found = [known.get(self._run.unit_key(source, each), (None, None))[1] for each in tasks]
            self._tokens[key] = (
                None
                if any(digests is None for digests in found)
                else hash_values(*[_chosen(digests, layer) for digests in found if digests is not None])
            )
        return self._tokens[key]

    def _task(self, stage: Stage, task: int) -> Digests | None:
        self._refresh(stage)
        return self._digests[stage.name].get(self._run.unit_key(stage, task), (None, None))[1]

    def _refresh(self, stage: Stage) -> None:
        """Look again at the stage's manifests where their folder has changed: one look at the folder where it has not."""
        folder = self._run.manifest_file(stage, 0).parent
        try:
            changed = os.stat(folder).st_mtime_ns
        except OSError:
            changed = 0
        if self._folders.get(stage.name) == changed and time.time_ns() - changed > _SETTLED_NS:
            return
        self._folders[stage.name] = changed
        before, now = self._digests[stage.name], {}
        for name, mark in _manifests(folder):
            known = before.get(name)
            now[name] = (
                known if known and known[0] == mark else (mark, _digests(read_if_whole(folder / f"{name}.json")))
            )
        if now != before:
            self._digests[stage.name] = now
            self._tokens = {key: token for key, token in self._tokens.items() if key[0] != stage.name}


def _manifests(folder: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """(unit, what tells one version of its manifest from another)."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    state = entry.stat()
                    found.append((entry.name.removesuffix(".json"), (state.st_mtime_ns, state.st_size, state.st_ino)))
    except OSError:
        return []
    return found


def _digests(manifest: Any) -> Digests | None:
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not files or not isinstance(files, dict) or manifest.get("unfinished"):  # some files are made again
        return None
    by_layer: dict[int | None, list[tuple[str, str]]] = defaultdict(list)
    everything = []
    for name, entry in files.items():
        if "hash" not in entry:
            return None
        everything.append((name, entry["hash"]))
        if not entry.get("side"):
            by_layer[entry.get("layer")].append((name, entry["hash"]))
    digests: Digests = {layer: hash_values(sorted(each)) for layer, each in by_layer.items()}
    return digests | {_ALL: hash_values(sorted(everything))}


def _chosen(digests: Digests, layer: int | None) -> list[str]:
    if layer is None:
        return [digests[key] for key in sorted(digests, key=lambda key: -2 if key is None else key) if key != _ALL]
    return [digests[key] for key in (None, layer) if key in digests]
