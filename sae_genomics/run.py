"""Run: every path of a run, and which of its tasks are done, missing or stale.

A task is done when every file it must leave is there as its manifest records it, when its fingerprint is the one that today's config asks for,
and when it was made from the very files that the stages before it have today. Fingerprints depend on configuration and
input identity alone, never on time or place, so a status can be told without a scheduler.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sae_genomics import content, owner
from sae_genomics.checked_json import read_checked_json, read_if_whole, write_checked_json
from sae_genomics.config import RunConfig
from sae_genomics.contents import Contents
from sae_genomics.data.kinds import kind_named
from sae_genomics.errors import DamagedArtifact, UserError, not_as_written
from sae_genomics.file_keys import FILE_KEYS, change, contents
from sae_genomics.identity import hash_values
from sae_genomics.progress import say

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig
    from sae_genomics.data.kind import DataKind
    from sae_genomics.models.pins import Pin
    from sae_genomics.stages import Stage

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


class Run:
    """A config made concrete: its paths, its tasks' units, its fingerprints.

    config: validated settings.
    config_file: where they were read from; None when made in memory.
    overrides: what was set beside that file (`section.key=value`) and is in config already: printed commands repeat it.
    """

    def __init__(self, config: RunConfig, config_file: Path | None = None, overrides: Sequence[str] = ()):
        self.config = config
        self.overrides = tuple(overrides)
        self.config_file = Path(config_file).absolute() if config_file else None
        name = config.run.name or "run"
        self.name = name
        self.checkpoints = config.paths.checkpoints / name
        self.results = config.paths.results / name
        self.logs = config.paths.logs / name
        self.contents = Contents(self)
        self._verified: dict[tuple[str, int], bool] = {}  # (file, its time) -> whether it is as recorded
        self._verified_bytes = 0

    # --- paths: every artifact of the design, once ---

    @property
    def prepare_dir(self) -> Path:
        """plan.json, units.parquet, and the tables of the data kind."""
        return self.results / "prepare"

    @property
    def plan_file(self) -> Path:
        return self.prepare_dir / "plan.json"

    @property
    def units_file(self) -> Path:
        return self.prepare_dir / "units.parquet"

    @property
    def genes_file(self) -> Path:
        return self.prepare_dir / "genes.parquet"

    @property
    def cells_file(self) -> Path:
        return self.prepare_dir / "cells.parquet"

    def tokens_file(self, shard: int) -> Path:
        return self._activations_dir("tokens") / f"shard_{shard:04d}.h5"

    def activations_file(self, layer: int, shard: int) -> Path:
        return self._activations_dir(f"layer_{layer:02d}") / f"shard_{shard:04d}.h5"

    def _activations_dir(self, name: str) -> Path:
        """Remembered: a large run asks for its hundred thousand files again and again."""
        folders: dict[str, Path] = self.__dict__.setdefault("_activations_dirs", {})
        if name not in folders:
            folders[name] = self.checkpoints / "activations" / name
        return folders[name]

    def sae_dir(self, layer: int) -> Path:
        return self.checkpoints / "saes" / f"layer_{layer:02d}"

    def layer_results(self, layer: int) -> Path:
        return self.results / f"layer_{layer:02d}"

    @property
    def figures_dir(self) -> Path:
        return self.results / "figures"

    @property
    def report_file(self) -> Path:
        return self.results / "report.md"

    @property
    def dashboard_file(self) -> Path:
        return self.results / "dashboard.html"

    @property
    def jobs_file(self) -> Path:
        return self.logs / "jobs.tsv"

    def heartbeat_file(self, stage: Stage, task: int) -> Path:
        return self.logs / "heartbeats" / f"{stage.name}_{self.unit_key(stage, task)}.json"

    def manifest_file(self, stage: Stage, task: int) -> Path:
        root = self.checkpoints if stage.root == "checkpoints" else self.results
        return root / "manifests" / stage.name / f"{self.unit_key(stage, task)}.json"

    # --- units: what a stage's tasks are ---

    @cached_property
    def kind(self) -> DataKind:
        """The kind of data that the run is made of."""
        return kind_named(self.config.data.kind)

    @cached_property
    def data_files(self) -> list[Path]:
        """The input files, resolved, the main one first. Raises UserError when one is not there."""
        return self.kind.inputs(self.config.data)

    @cached_property
    def data_file(self) -> Path:
        """The main input file."""
        return self.data_files[0]

    @cached_property
    def pin(self) -> Pin | None:
        """The commit of a published model's weights: as this run recorded it, else as the config or the cache tells it.

        No network is used. None for a model that is a local folder, and until `pin_model` where nothing here tells the commit.
        """
        from sae_genomics.models.pins import find_pin

        return find_pin(self.config.model, self.config.paths.cache, owner.recorded_pin(self), ask_hub=False)

    def pin_model(self) -> None:
        """Have the commit of a published model told, by the hub where nothing here tells it. Raises UserError when it is asked in vain."""
        from sae_genomics.models.pins import find_pin

        if self.pin is not None:
            return
        pin = find_pin(self.config.model, self.config.paths.cache, owner.recorded_pin(self), ask_hub=True)
        if pin is not None:
            say(f"{pin.model}: {pin.asked_as[-1]} is commit {pin.commit}; this run keeps to it")
            for name in ("model_info", "layers", "identities", "_bases"):  # they were told without the commit
                self.__dict__.pop(name, None)
            self.__dict__["pin"] = pin

    @property
    def pinned_model(self) -> ModelConfig:
        """The config's section `model` to load weights by: its revision is the commit that this run uses."""
        from sae_genomics.models.pins import pinned

        self.pin_model()
        return pinned(self.config.model, self.pin)

    @cached_property
    def model_info(self) -> Any:
        """The model's `ModelInfo`, read without its weights."""
        from sae_genomics.models import describe
        from sae_genomics.models.pins import pinned

        return describe(pinned(self.config.model, self.pin), self.config.paths.cache)

    @cached_property
    def layers(self) -> list[int]:
        """The requested layers, ascending. Raises UserError for one the model does not have."""
        from sae_genomics.models import resolve_layers

        return resolve_layers(self.config.model.layers, self.model_info)

    @cached_property
    def n_items(self) -> int:
        """Items (cells, proteins) that the run uses."""
        return self.kind.count_items(self.config.data)

    @cached_property
    def n_shards(self) -> int:
        return max(1, -(-self.n_items // self.config.activations.cells_per_shard))

    def shard_items(self, shard: int) -> tuple[int, int]:
        """First and one-past-last row of a shard's items, of those that `kind.read_items` gives."""
        size = self.config.activations.cells_per_shard
        return shard * size, min((shard + 1) * size, self.n_items)

    def n_tasks(self, stage: Stage) -> int:
        """How many tasks a stage has."""
        if stage.unit == "run":
            return 1
        return self.n_shards if stage.unit == "shard" else len(self.layers)

    def unit_key(self, stage: Stage, task: int) -> str:
        """`run`, `shard_0003` or `layer_07`: a task's name in manifests, whatever its place in the list of layers."""
        if stage.unit == "run":
            return "run"
        if stage.unit == "shard":
            return f"shard_{task:04d}"
        return f"layer_{self.layers[task]:02d}"

    def label(self, stage: Stage, task: int) -> str:
        """`extract shard_0003`, or `prepare` where a stage is one task: a task's name in what is said of it."""
        return stage.name if stage.unit == "run" else f"{stage.name} {self.unit_key(stage, task)}"

    # --- fingerprints and states ---

    @cached_property
    def identities(self) -> dict[str, str]:
        """Content hashes of the input data and the model."""
        return {"data": self._data_identity(), "model": self.model_info.identity}

    def _data_identity(self) -> str:
        """Hash of the input files; remembered beside the results so that a status need not read them again."""
        remembered = owner.recorded(self)
        known = {key: value for key, value in remembered.items() if key in owner.DATA_FILES}
        if known == owner.data_files(self.data_files) and remembered.get("identities", {}).get("data"):
            return str(remembered["identities"]["data"])
        return self.kind.content_hash(self.config.data)

    def config_values(self, stage: Stage) -> dict[str, Any]:
        """`section.key` → value for every key the stage's result depends on."""
        values = self.config.model_dump(mode="json")
        chosen: dict[str, Any] = {}
        for key in stage.keys:
            section, _, name = key.partition(".")
            names = [name] if name else list(values[section])
            for each in names:
                full = f"{section}.{each}"
                value = values[section][each]
                if full not in stage.ignores and not owner.is_ignored(self, full, value):
                    chosen[full] = contents(full, value) if full in FILE_KEYS else value
        return chosen

    def values(self, keys: Sequence[str]) -> dict[str, Any]:
        """`section.key` → value, of some settings."""
        pairs = {key: key.split(".") for key in keys}
        return {key: getattr(getattr(self.config, section), name) for key, (section, name) in pairs.items()}

    def base_fingerprint(self, stage: Stage) -> str:
        """Hash of the stage's name, format version, config values and its inputs' base fingerprints."""
        cache: dict[str, str] = self.__dict__.setdefault("_bases", {})
        if stage.name not in cache:
            from sae_genomics.stages import stage_named

            inputs = {need: self.base_fingerprint(stage_named(need)) for need in stage.needs}
            roots = {} if stage.needs else self.identities
            cache[stage.name] = hash_values(stage.name, stage.version, self.config_values(stage), inputs, roots)
        return cache[stage.name]

    def fingerprint(self, stage: Stage, **parts: Any) -> str:
        """Fingerprint of one file: the stage's base and what distinguishes the file (shard, layer, hook)."""
        return hash_values(self.base_fingerprint(stage), parts)

    def state(self, stage: Stage, task: int, layer: int | None = None) -> State:
        """done, missing or stale, from the manifest and the files themselves.

        layer: look only at the files of this layer and at those that belong to none; default: all of them.
        """
        try:
            manifest = self._manifest(stage, task, strict=True)
        except DamagedArtifact as damage:
            return State("missing", not_as_written(damage.path.name), damaged=damage.path)
        recorded = manifest.get("files", {})
        if not recorded:
            return State("missing", "not finished yet")
        # A file's fingerprint follows from the stage's and from which file it is; only a partial stage's parts may vary.
        same_base = not stage.partial and not stage.varying and manifest.get("base") == self.base_fingerprint(stage)
        stale = False
        prefix = f"{self._root(stage)}{os.sep}"
        for path, parts in stage.files(self, task).items():
            if layer is not None and parts.get("layer", layer) != layer:
                continue
            text = os.fspath(path)
            entry = recorded.get(text.removeprefix(prefix))
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
            stale = stale or not (same_base or entry["fingerprint"] == self.fingerprint(stage, **parts))
        if stale:
            return State("stale", self._why_stale(stage, manifest))
        remade = self._remade_inputs(stage, task, manifest)
        return State("stale", f"{' and '.join(remade)} came out different since") if remade else State("done")

    def _manifest(self, stage: Stage, task: int, strict: bool = False) -> dict[str, Any]:
        """What a manifest holds, or nothing. strict: raise DamagedArtifact where it is damaged."""
        read = read_checked_json if strict else read_if_whole
        manifest = read(self.manifest_file(stage, task)) or {}
        return manifest if isinstance(manifest.get("files", {}), dict) else {}

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

    def _remade_inputs(self, stage: Stage, task: int, manifest: dict[str, Any]) -> list[str]:
        """The stages whose files are not those that a task was made from."""
        made_from = manifest.get("made_from")
        if not made_from:
            return []
        today = self.contents.read_by(stage, task)
        return [name for name, token in today.items() if token and made_from.get(name) not in (None, token)]

    def keep_finished(self, stage: Stage, task: int) -> None:
        """Before a task is done again: leave in its manifest only the files that may stay as they are.

        Those are whole, of today's settings and made from today's inputs. A stage asks `finished_files` for them.
        """
        manifest = self._manifest(stage, task)
        kept = {}
        if manifest and not stage.partial and not self._remade_inputs(stage, task, manifest):
            root = self._root(stage)
            for path, parts in stage.files(self, task).items():
                name = path.relative_to(root).as_posix()
                entry = manifest["files"].get(name)
                if (
                    entry is not None
                    and entry["fingerprint"] == self.fingerprint(stage, **parts)
                    and _is_there(path, entry)
                ):
                    kept[name] = entry
        if kept:
            write_checked_json(self.manifest_file(stage, task), {**manifest, "files": kept, "unfinished": True})
        else:
            self.manifest_file(stage, task).unlink(missing_ok=True)

    def finished_files(self, stage: Stage, task: int) -> set[Path]:
        """Files of a task that its manifest records."""
        return {self._root(stage) / name for name in self._manifest(stage, task).get("files", {})}

    def recorded(self, stage: Stage, task: int, path: Path) -> dict[str, Any] | None:
        """What a task's manifest says of one of its files: size, content hash and fingerprint."""
        found: dict[str, Any] | None = (
            self._manifest(stage, task).get("files", {}).get(path.relative_to(self._root(stage)).as_posix())
        )
        return found

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
        manifest = self._manifest(stage, task)
        manifest["files"][path.relative_to(self._root(stage)).as_posix()]["mtime_ns"] = 0
        write_checked_json(self.manifest_file(stage, task), manifest)

    def _inputs(
        self, stage: Stage, task: int, strict: bool = False
    ) -> Iterator[tuple[Stage, int, Path, dict[str, Any]]]:
        """(stage, task, file, what was recorded of it) of each file that a task reads."""
        from sae_genomics.stages import read_tasks

        layer = self.layers[task] if stage.unit == "layer" else None
        for source, each in read_tasks(self, stage, task):
            root = self._root(source)
            for name, entry in self._manifest(source, each, strict).get("files", {}).items():
                # What only the report reads may be large, and is left to it.
                is_read = stage.partial or not entry.get("side") or entry["size"] <= content.WHOLE_FILE_BYTES
                if is_read and (layer is None or entry.get("layer", layer) == layer):
                    yield source, each, root / name, entry

    def states(self, stage: Stage) -> list[State]:
        """Every task's state. Where the file system is far away, many tasks are looked at side by side."""
        tasks = range(self.n_tasks(stage))
        started = time.perf_counter()
        first = [self.state(stage, task) for task in tasks[:_PROBED]]
        if len(tasks) > _PROBED and time.perf_counter() - started > _SLOW_TASK_SECONDS * _PROBED:
            with ThreadPoolExecutor(16) as pool:
                return first + list(pool.map(lambda task: self.state(stage, task), tasks[_PROBED:]))
        return first + [self.state(stage, task) for task in tasks[_PROBED:]]

    def write_manifest(
        self, stage: Stage, task: int, facts: dict[str, Any], made_from: dict[str, str | None] | None = None
    ) -> None:
        """Record that a task's files are complete. Raises RuntimeError when one of them is missing.

        made_from: `contents.read_by` as it was before the task read anything; by default as it is now.
        """
        from sae_genomics.stages import stage_named

        root = self._root(stage)
        files = {}
        for path, parts in stage.files(self, task).items():
            if not path.exists():
                raise RuntimeError(f"stage {stage.name} task {task} ended without {path}")
            files[path.relative_to(root).as_posix()] = {
                **content.record(path),
                "fingerprint": self.fingerprint(stage, **parts),
                **({"layer": parts["layer"]} if "layer" in parts else {}),
                **({"side": True} if stage.side_files & {path.name, path.parent.name} else {}),
            }
        self._record_owner()
        write_checked_json(
            self.manifest_file(stage, task),
            {
                "stage": stage.name,
                "unit": self.unit_key(stage, task),
                "version": stage.version,
                "base": self.base_fingerprint(stage),
                "config": self.config_values(stage) | self.values(stage.varying),
                "inputs": {need: self.base_fingerprint(stage_named(need)) for need in stage.needs},
                "identities": self.identities if not stage.needs else {},
                "made_from": self.contents.read_by(stage, task) if made_from is None else made_from,
                "files": files,
                **facts,
            },
        )

    def _root(self, stage: Stage) -> Path:
        return self.checkpoints if stage.root == "checkpoints" else self.results

    def _why_stale(self, stage: Stage, manifest: dict[str, Any]) -> str:
        """The first causes a reader can act on: changed keys, then changed inputs."""
        from sae_genomics.stages import stage_named

        if manifest.get("version") != stage.version:
            return "written by another version of this stage"
        then, now = manifest.get("config", {}), self.config_values(stage) | self.values(stage.varying)
        changed = [key for key in now if then.get(key, ...) != json.loads(json.dumps(now[key]))]
        if changed:
            return "; ".join(
                f"{key}: {change(then.get(key), now[key])}"
                if key in FILE_KEYS
                else f"{key} was {then.get(key)}, is {now[key]}"
                for key in changed[:3]
            )
        for kind, identity in manifest.get("identities", {}).items():
            if identity != self.identities.get(kind):
                return f"the {kind} changed"
        for need, base in manifest.get("inputs", {}).items():
            if base != self.base_fingerprint(stage_named(need)):
                return f"{need} is stale or was redone"
        return "its inputs changed"

    # --- whose run this is ---

    def check(self, overwrite: bool = False, ask_hub: bool = True) -> None:
        """Everything that can be known to be wrong before any work: raises UserError, writes nothing.

        A run's name belongs to one config file, one data set and one model. Settings of that file may change: the
        stages they touch become stale. Another file, data set or model under the same name is refused, unless `overwrite`.

        ask_hub: whether the hub may be asked for the commit of a published model, where nothing here tells it.
        """
        self._check_kind()
        _ = self.data_files, self.layers
        if self.config.sae.k > self.d_sae:
            raise UserError(
                f"sae.k = {self.config.sae.k} is more than d_sae = {self.d_sae} (sae.expansion x d_model); "
                f"set sae.k to {self.d_sae} or less, or sae.d_sae to more"
            )
        from sae_genomics.validation.settings import check_settings

        check_settings(self.config)
        owner.say_if_damaged(self)
        if ask_hub:
            self.pin_model()
        if not overwrite:
            owner.refuse_another(self)

    def _check_kind(self) -> None:
        """Raises UserError where the model reads another kind of data."""
        from sae_genomics.models import FAMILIES, reads

        model, kind = self.config.model, self.kind.name
        if (read := reads(model)) == kind:
            return
        fitting = [name for name in FAMILIES if reads(model.model_copy(update={"family": name})) == kind]
        options = [f"model.family to {' or '.join(fitting)}"] if fitting else []
        options.append(f"data.kind to {read}")
        raise UserError(
            f"model.family {model.family} reads {read}, and data.kind is {kind}; set {', or '.join(options)}"
        )

    @property
    def d_sae(self) -> int:
        """Number of latents of each SAE."""
        return self.config.sae.d_sae or max(1, round(self.config.sae.expansion * self.model_info.d_model))

    def record_pin(self) -> None:
        """Before other nodes work on this run: note the commit of a published model's weights, so that all take the same."""
        if self.pin is not None and self.pin != owner.recorded_pin(self):
            self._record_owner()

    def _record_owner(self) -> None:
        """Note whose run this is, with the first thing that is written."""
        owner.record(self)


def _is_there(path: Path, entry: dict[str, Any]) -> bool:
    try:
        file = os.stat(path)
        same = file.st_size == entry["size"]
        return same and (
            entry.get("mtime_ns") == file.st_mtime_ns or ("hash" in entry and content.is_whole(path, entry))
        )
    except OSError:
        return False
