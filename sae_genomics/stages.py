"""The pipeline as data: one entry a stage. Submitting, running, status and reporting derive from this list."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sae_genomics.associations.accumulators import associate_files
from sae_genomics.errors import UserError
from sae_genomics.run import Run

Files = dict[Path, dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    number: its place, as in `scripts/03_train.py`.
    unit: what one task works on.
    needs: stages whose tasks come first; a layer's task waits for the same layer's, or for all shards.
    reads: stages whose files a task reads. When their content changes, what was made from it is stale.
    keys: config sections or `section.key`s that its result depends on.
    ignores: `section.key`s within those that it does not depend on.
    root: where its files and manifests stand.
    function: `module:name`, called as name(run, task).
    fitting: `module:name`, called as name(run, n): how many of n tasks one process can do at once; without it one.
    files: (run, task) → files the task must leave, each with what distinguishes its fingerprint.
    side_files: names of files, and of folders of files, whose content decides nothing that other stages but the report make.
    version: raised whenever the meaning of its files changes.
    gpu: whether a task can use one.
    partial: whether it runs although some of its inputs are missing.
    varying: config keys, `section.key`, on which some of its files depend and others do not; those that do name them in what
        distinguishes them.
    """

    name: str
    number: int
    unit: Literal["run", "shard", "layer"]
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    keys: tuple[str, ...]
    root: Literal["checkpoints", "results"]
    function: str
    files: Callable[[Run, int], Files]
    fitting: str | None = None
    version: int = 1
    ignores: frozenset[str] = frozenset()
    side_files: frozenset[str] = frozenset()
    gpu: bool = False
    partial: bool = False
    varying: tuple[str, ...] = ()

    def call(self, run: Run, task: int) -> None:
        """Do one task's work, in this process."""
        _named(self.function)(run, task)

    def at_once(self, run: Run, n_tasks: int) -> int:
        """How many of `n_tasks` tasks to do at once in this process, from 1 to n_tasks."""
        if self.fitting is None or n_tasks < 2:
            return 1
        return max(1, min(n_tasks, _named(self.fitting)(run, n_tasks)))


def _named(function: str) -> Callable[..., Any]:
    module, name = function.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _prepare_files(run: Run, task: int) -> Files:
    return {path: {} for path in run.kind.prepare_files(run)}


def _extract_files(run: Run, shard: int) -> Files:
    files: Files = {run.tokens_file(shard): {"shard": shard}}
    for layer in run.layers:
        files[run.activations_file(layer, shard)] = {"shard": shard, "layer": layer}
    return files


TRAINED_FILES = ("cfg.json", "sae_weights.safetensors")
EVALUATED_FILES = ("sparsity.safetensors", "metrics.json")
MEANS_FILES = ("unit_means.safetensors",)  # with sae.centre: unit
SAE_FILES = TRAINED_FILES + EVALUATED_FILES
SECOND_SEED = "second_seed"  # folder of the SAE that sae.stability compares with
EVALUATION_KEYS = ("sae.stability", "sae.evaluate_tokens", "sae.loss_recovered_cells")
VALIDATE_FILES = ("feature_terms.parquet", "annotation_nulls.parquet")


def _train_files(run: Run, task: int) -> Files:
    """Only what the evaluation leaves depends on its settings."""
    layer = run.layers[task]
    folder, evaluation = run.sae_dir(layer), run.values(EVALUATION_KEYS)
    trained = TRAINED_FILES + (MEANS_FILES if run.config.sae.centre == "unit" else ())
    files: Files = {folder / name: {"layer": layer} for name in trained}
    files |= {folder / name: {"layer": layer, "evaluation": evaluation} for name in EVALUATED_FILES}
    if run.config.sae.stability:
        files |= {folder / SECOND_SEED / name: {"layer": layer} for name in trained}
    return files


def _associate_files(run: Run, task: int) -> Files:
    """The tables of the accumulators that apply to the run."""
    layer = run.layers[task]
    return {run.layer_results(layer) / name: {"layer": layer} for name in associate_files(run)}


def _validate_files(run: Run, task: int) -> Files:
    layer = run.layers[task]
    return {run.layer_results(layer) / name: {"layer": layer} for name in VALIDATE_FILES}


def _report_files(run: Run, task: int) -> Files:
    """The report is made of what is done: it is stale as soon as that set, or what those files hold, changes."""
    done = [
        f"{stage.name}/{run.unit_key(stage, each)}={run.contents.of_task(stage, each)}"
        for stage in _WORK
        for each in range(run.n_tasks(stage))
        if run.state(stage, each).done
    ]
    files = [run.report_file] + ([run.dashboard_file] if run.config.report.dashboard else [])
    parts = {"layers": run.layers, "done": done, "evaluation": run.values(EVALUATION_KEYS)}
    return dict.fromkeys(files, parts)


_WORK: tuple[Stage, ...] = (
    Stage(
        name="prepare", number=1, unit="run", needs=(), reads=(), root="results",
        keys=("run.seed", "data", "model.family", "activations.cells_per_shard", "activations.tokens_per_cell"),
        function="sae_genomics.data.prepare:run_task", files=_prepare_files, side_files=frozenset({"plan.json", "units.parquet"}), version=2,
    ),
    Stage(
        name="extract", number=2, unit="shard", needs=("prepare",), reads=("prepare",), root="checkpoints",
        keys=("model", "activations"),
        function="sae_genomics.activations.extract:run_task", files=_extract_files, gpu=True,
    ),
    Stage(
        name="train", number=3, unit="layer", needs=("extract",), reads=("prepare", "extract"), root="checkpoints",
        keys=("run.seed", "sae"), ignores=frozenset(EVALUATION_KEYS), varying=EVALUATION_KEYS, version=3,
        function="sae_genomics.sae.task:run_task", fitting="sae_genomics.sae.memory:layers_at_once", files=_train_files, gpu=True,
        side_files=frozenset({*EVALUATED_FILES, SECOND_SEED}),
    ),
    Stage(
        name="associate", number=4, unit="layer", needs=("train",), reads=("prepare", "extract", "train"), root="results",
        keys=("run.seed", "associations", "validation.baselines", "validation.untrained_cells"), version=2,
        function="sae_genomics.associations.task:run_task", files=_associate_files, gpu=True,
        side_files=frozenset({"features.h5ad"}),
    ),
    Stage(
        name="validate", number=5, unit="layer", needs=("associate",), reads=("associate",), root="results",
        keys=("run.seed", "validation"), version=2,
        function="sae_genomics.validation.task:run_task", files=_validate_files,
    ),
)  # fmt: skip
# Made of whatever is done of all the others, the activations themselves left out.
_REPORT = Stage(
    name="report", number=9, unit="run", needs=tuple(stage.name for stage in _WORK),
    reads=tuple(stage.name for stage in _WORK if stage.unit != "shard"), root="results", keys=("report",),
    function="sae_genomics.report.task:run_task", files=_report_files, partial=True,
)  # fmt: skip
STAGES: tuple[Stage, ...] = (*_WORK, _REPORT)


def stage_named(name: str) -> Stage:
    """The stage of that name. Raises UserError listing the names there are."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise UserError(f"no stage {name!r}; the stages are {', '.join(stage.name for stage in STAGES)}")


def needed_tasks(run: Run, stage: Stage, task: int) -> list[tuple[Stage, int]]:
    """The tasks that must be done before this one: the same layer's, or all of a stage with other units."""
    return _counterparts(run, stage, task, stage.needs)


def read_tasks(run: Run, stage: Stage, task: int) -> list[tuple[Stage, int]]:
    """The tasks whose files this one reads, likewise."""
    return _counterparts(run, stage, task, stage.reads)


def _counterparts(run: Run, stage: Stage, task: int, names: tuple[str, ...]) -> list[tuple[Stage, int]]:
    tasks = []
    for name in names:
        other = stage_named(name)
        same_unit = other.unit == stage.unit == "layer"
        tasks += [(other, each) for each in ([task] if same_unit else range(run.n_tasks(other)))]
    return tasks
