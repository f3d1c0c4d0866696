"""Run: a config made concrete. Its paths, its tasks, their fingerprints and states, and whose run it is.

`paths`, `fingerprints`, `manifests`, `states` and `owner` do the work; what others ask of a run is here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics import owner
from sae_genomics.config import RunConfig
from sae_genomics.contents import Contents
from sae_genomics.data.kinds import kind_named
from sae_genomics.errors import UserError
from sae_genomics.fingerprints import Fingerprints
from sae_genomics.manifests import Manifests
from sae_genomics.paths import RunPaths
from sae_genomics.progress import say
from sae_genomics.states import State, States

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig
    from sae_genomics.data.kind import DataKind
    from sae_genomics.models.pins import Pin
    from sae_genomics.stage import Stage


def _not_known(stage: Stage, task: int) -> str | None:
    """Why a task's last attempt did not end well, where nothing keeps a record of attempts."""
    return None


class Run:
    """A config made concrete: its paths, its tasks' units, its fingerprints.

    config: validated settings.
    config_file: where they were read from; None when made in memory.
    overrides: what was set beside that file (`section.key=value`) and is in config already: printed commands repeat it.
    paths: where everything is; by default below the config's folders.
    is_owner: whether the run's name belongs to these settings. It does not where others borrow the run's folders.
    """

    def __init__(
        self,
        config: RunConfig,
        config_file: Path | None = None,
        overrides: Sequence[str] = (),
        paths: RunPaths | None = None,
        is_owner: bool = True,
    ):
        self.config = config
        self.overrides = tuple(overrides)
        self.config_file = Path(config_file).absolute() if config_file else None
        self.name = config.run.name or "run"
        self.paths = paths or RunPaths.of(config, self.name)
        self.is_owner = is_owner
        self.reason_of: Callable[[Stage, int], str | None] = _not_known  # set by what runs the tasks
        self._compose()

    def with_paths(self, paths: RunPaths) -> Run:
        """The same run with some files in other folders. What is known of its data and model need not be told again."""
        other = copy.copy(self)
        other.paths = paths
        other._compose()
        return other

    def _compose(self) -> None:
        self.contents, self.manifests, self._states = Contents(self), Manifests(self), States(self)

    # --- paths ---

    @property
    def checkpoints(self) -> Path:
        return self.paths.checkpoints

    @property
    def results(self) -> Path:
        return self.paths.results

    @property
    def logs(self) -> Path:
        return self.paths.logs

    @property
    def prepare_dir(self) -> Path:
        return self.paths.prepare_dir

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

    def tokens_file(self, shard: int) -> Path:
        return self.paths.tokens_file(shard)

    def activations_file(self, layer: int, shard: int) -> Path:
        return self.paths.activations_file(layer, shard)

    def sae_dir(self, layer: int) -> Path:
        return self.paths.sae_dir(layer)

    def layer_results(self, layer: int) -> Path:
        return self.paths.layer_results(layer)

    def heartbeat_file(self, stage: Stage, task: int) -> Path:
        return self.paths.heartbeat_file(stage, self.unit_key(stage, task))

    def manifest_file(self, stage: Stage, task: int) -> Path:
        return self.paths.manifest_file(stage, self.unit_key(stage, task))

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
            for name in ("model_info", "layers", "content_hashes", "fingerprints"):  # they were told without the commit
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
        """Items (cells, proteins) that the run uses; remembered beside the results, because to count them can take a whole file."""
        known = owner.remembered_items(self)
        return self.kind.count_items(self.config.data) if known is None else known

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
        """`run`, `shard_0003` or `layer_07`: a task's name in manifests, whatever its position in the list of layers."""
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
    def content_hashes(self) -> dict[str, str]:
        """Content hashes of the input data and the model."""
        return {"data": self._data_hash(), "model": self.model_info.identity}

    def _data_hash(self) -> str:
        """Hash of the input files; remembered beside the results so that a status need not read them again."""
        return owner.remembered_hash(self) or self.kind.content_hash(self.config.data)

    @cached_property
    def fingerprints(self) -> Fingerprints:
        return Fingerprints(self)

    def config_values(self, stage: Stage) -> dict[str, Any]:
        """`section.key` -> value for every key that the stage's result depends on."""
        return self.fingerprints.config_values(stage)

    def values(self, keys: Sequence[str]) -> dict[str, Any]:
        """`section.key` → value, of some settings."""
        pairs = {key: key.split(".") for key in keys}
        return {key: getattr(getattr(self.config, section), name) for key, (section, name) in pairs.items()}

    def base_fingerprint(self, stage: Stage) -> str:
        """Hash of the stage's name, format version, config values and its inputs' base fingerprints."""
        return self.fingerprints.base(stage)

    def fingerprint(self, stage: Stage, **parts: Any) -> str:
        """Fingerprint of one file: the stage's base and what distinguishes the file (shard, layer, hook)."""
        return self.fingerprints.of_file(stage, parts)

    def state(self, stage: Stage, task: int, layer: int | None = None) -> State:
        """done, missing or stale. layer: look only at the files of this layer and at those of none; default: at all of them."""
        return self._states.of_task(stage, task, layer)

    def states(self, stage: Stage) -> list[State]:
        """Every task's state."""
        return self._states.of_stage(stage)

    def write_manifest(
        self, stage: Stage, task: int, facts: dict[str, Any], made_from: dict[str, str | None] | None = None
    ) -> None:
        """Record that a task's files are complete; made_from: `contents.read_by` before it began, by default as it is now."""
        self.manifests.write(stage, task, facts, self.contents.read_by(stage, task) if made_from is None else made_from)

    def finished_files(self, stage: Stage, task: int) -> set[Path]:
        """Files of a task that its manifest records."""
        return self.manifests.finished_files(stage, task)

    # --- whose run this is ---

    def check(self, stages: Sequence[Stage] = (), overwrite: bool = False, ask_hub: bool = True) -> None:
        """Everything that can be known to be wrong before any work: raises UserError, writes nothing.

        A run's name belongs to one config file, one data set and one model. Settings of that file may change: the
        stages they touch become stale. Another file, data set or model under the same name is refused, unless `overwrite`.

        stages: those whose own settings are looked at, `stages_of(run)` for all of them.
        ask_hub: whether the hub may be asked for the commit of a published model, where nothing here tells it.
        """
        self._check_kind()
        _ = self.data_files, self.layers
        for stage in stages:
            stage.check_settings(self)
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
        some = " or ".join([", ".join(fitting[:-1]), fitting[-1]] if len(fitting) > 1 else fitting)
        options = [f"model.family to {some}"] if fitting else []
        options.append(f"data.kind to {read}")
        raise UserError(
            f"model.family {model.family} reads {read}, and data.kind is {kind}; set {', or '.join(options)}"
        )

    @property
    def d_sae(self) -> int:
        """Number of latents of each SAE; of published ones on the hub as the settings have it, until they are here."""
        from sae_genomics.sae.published.sources import known_d_sae

        return (
            known_d_sae(self)
            or self.config.sae.d_sae
            or max(1, round(self.config.sae.expansion * self.model_info.d_model))
        )

    def record_pin(self) -> None:
        """Before other nodes work on this run: note the commit of a published model's weights, so that all take the same."""
        if self.pin is not None and self.pin != owner.recorded_pin(self):
            self.record_owner()

    def record_owner(self) -> None:
        """Note whose run this is, with the first thing that is written."""
        if self.is_owner:
            owner.record(self)
