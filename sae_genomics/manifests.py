"""The record that each finished task leaves: its files, what they hold, by which settings and from which inputs they were made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics import content
from sae_genomics.checked_json import read_checked_json, read_if_whole, write_checked_json
from sae_genomics.errors import DamagedArtifact

if TYPE_CHECKING:
    from sae_genomics.run import Run
    from sae_genomics.stage import Stage


class Manifests:
    """Of one run."""

    def __init__(self, run: Run):
        self._run = run

    def read(self, stage: Stage, task: int, strict: bool = False) -> dict[str, Any]:
        """What a manifest holds, or nothing. strict: raise DamagedArtifact where it is damaged."""
        read = read_checked_json if strict else read_if_whole
        manifest = read(self._run.manifest_file(stage, task)) or {}
        return manifest if isinstance(manifest.get("files", {}), dict) else {}

    def write(self, stage: Stage, task: int, facts: dict[str, Any], made_from: dict[str, str | None]) -> None:
        """Record that a task's files are complete. Raises RuntimeError when one of them is missing.

        made_from: `contents.read_by` as it was before the task read anything. facts: what is noted beside.
        """
        run = self._run
        files = {}
        for path, parts in stage.files(run, task).items():
            if not path.exists():
                raise RuntimeError(f"stage {stage.name} task {task} ended without {path}")
            files[run.paths.recorded_name(stage, path)] = {
                **content.record(path),
                "fingerprint": run.fingerprint(stage, **parts),
                **({"layer": parts["layer"]} if "layer" in parts else {}),
                **({"side": True} if stage.is_side(path) else {}),
            }
        run.record_owner()
        write_checked_json(
            run.manifest_file(stage, task),
            {
                "stage": stage.name,
                "unit": run.unit_key(stage, task),
                "version": stage.version,
                "base": run.base_fingerprint(stage),
                "config": run.config_values(stage) | run.values(stage.varying),
                "inputs": run.fingerprints.inputs(stage),
                "identities": run.content_hashes if not stage.needs else {},
                "made_from": made_from,
                "files": files,
                **facts,
            },
        )

    def keep_finished(self, stage: Stage, task: int) -> None:
        """Before a task is done again: leave in its manifest only the files that may stay as they are.

        Those are whole, of today's settings and made from today's inputs. A stage asks `finished_files` for them.
        """
        run, manifest = self._run, self.read(stage, task)
        kept = {}
        if manifest and not stage.partial and not self.remade_inputs(stage, task, manifest):
            for path, parts in stage.files(run, task).items():
                name = run.paths.recorded_name(stage, path)
                entry = manifest["files"].get(name)
                if (
                    entry is not None
                    and entry["fingerprint"] == run.fingerprint(stage, **parts)
                    and _is_there(path, entry)
                ):
                    kept[name] = entry
        if kept:
            write_checked_json(run.manifest_file(stage, task), {**manifest, "files": kept, "unfinished": True})
        else:
            run.manifest_file(stage, task).unlink(missing_ok=True)

    def finished_files(self, stage: Stage, task: int) -> set[Path]:
        """Files of a task that its manifest records."""
        paths = self._run.paths
        return {paths.recorded_path(stage, name) for name in self.read(stage, task).get("files", {})}

    def recorded(self, stage: Stage, task: int, path: Path) -> dict[str, Any] | None:
        """What a task's manifest says of one of its files: size, content hash and fingerprint."""
        files = self.read(stage, task).get("files", {})
        found: dict[str, Any] | None = files.get(self._run.paths.recorded_name(stage, path))
        return found

    def remade_inputs(self, stage: Stage, task: int, manifest: dict[str, Any]) -> list[str]:
        """The stages whose files are not those that a task was made from."""
        made_from = manifest.get("made_from")
        if not made_from:
            return []
        today = self._run.contents.read_by(stage, task)
        return [name for name, token in today.items() if token and made_from.get(name) not in (None, token)]

    def verify_inputs(self, stage: Stage, task: int) -> None:
        """Compare the files that a task reads with what was recorded of them.

        Raises DamagedArtifact naming the first that differs, or the manifest that recorded it.
        """
        for _, _, path, entry in self._inputs(stage, task, strict=True):
            content.check(path, entry)

    def distrust_damaged(self, stage: Stage, task: int) -> list[Path]:
        """The files among a task's inputs that do not hold what was written. From now on their tasks count as missing."""
        damaged = []
        for source, each, path, entry in self._inputs(stage, task):
            try:
                content.check(path, entry)
            except DamagedArtifact:
                if path.exists():
                    damaged.append(path)
                    self._distrust(source, each, path)
        return damaged

    def _distrust(self, stage: Stage, task: int, path: Path) -> None:
        """Have every later look at a file compare its content: its time of writing is forgotten."""
        manifest = self.read(stage, task)
        manifest["files"][self._run.paths.recorded_name(stage, path)]["mtime_ns"] = 0
        write_checked_json(self._run.manifest_file(stage, task), manifest)

    def _inputs(
        self, stage: Stage, task: int, strict: bool = False
    ) -> Iterator[tuple[Stage, int, Path, dict[str, Any]]]:
        """(stage, task, file, what was recorded of it) of each file that a task reads."""
        layer = stage.layer_of(self._run, task)
        for source, each in stage.read_tasks(self._run, task):
            for name, entry in self.read(source, each, strict).get("files", {}).items():
                # What only the report reads may be large, and is left to it.
                is_read = stage.partial or not entry.get("side") or entry["size"] <= content.WHOLE_FILE_BYTES
                if is_read and (layer is None or entry.get("layer", layer) == layer):
                    yield source, each, self._run.paths.recorded_path(source, name), entry


def _is_there(path: Path, entry: dict[str, Any]) -> bool:
    try:
        file = os.stat(path)
        same = file.st_size == entry["size"]
        return same and (
            entry.get("mtime_ns") == file.st_mtime_ns or ("hash" in entry and content.is_whole(path, entry))
        )
    except OSError:
        return False
