"""The pipeline as data: one entry per stage. Submitting, running, status, planning and the report derive from this list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sae_genomics.activations.extraction.files import extract_files
from sae_genomics.associations.accumulators import VARYING_KEYS
from sae_genomics.associations.files import UNTRAINED, associate_files
from sae_genomics.causal.files import causal_files
from sae_genomics.causal.files import is_enabled as has_causal
from sae_genomics.concepts.files import concepts_files
from sae_genomics.concepts.files import is_enabled as has_concepts
from sae_genomics.cross_layer.files import cross_layer_files
from sae_genomics.cross_layer.files import is_enabled as has_cross_layer
from sae_genomics.data.files import prepare_files
from sae_genomics.errors import UserError
from sae_genomics.installed import entries
from sae_genomics.report.files import report_files
from sae_genomics.sae.files import EVALUATED_FILES, EVALUATION_KEYS, SECOND_SEED, train_files
from sae_genomics.stage import Stage
from sae_genomics.validation.files import has_gene_sets, validate_files

if TYPE_CHECKING:
    from sae_genomics.run import Run


_PREPARE = Stage(
    name="prepare", number=1, unit="run", needs=(), reads=(), root="results",
    keys=("run.seed", "data", "model.family", "activations.cells_per_shard", "activations.tokens_per_cell"),
    function="sae_genomics.data.prepare:run_task", files=prepare_files, version=2, cost="sae_genomics.data.cost:cost",
    side_files=frozenset({"plan.json", "units.parquet"}),
)  # fmt: skip
_EXTRACT = Stage(
    name="extract", number=2, unit="shard", needs=(_PREPARE,), reads=(_PREPARE,), root="checkpoints",
    keys=("model", "activations"),
    function="sae_genomics.activations.extraction.extract:run_task", files=extract_files, gpu=True,
    cost="sae_genomics.activations.extraction.cost:cost",
)  # fmt: skip
_TRAIN = Stage(
    name="train", number=3, unit="layer", needs=(_EXTRACT,), reads=(_PREPARE, _EXTRACT), root="checkpoints",
    keys=("run.seed", "sae"), ignores=frozenset(EVALUATION_KEYS), varying=EVALUATION_KEYS, version=3,
    function="sae_genomics.sae.task:run_task", fitting="sae_genomics.sae.memory:layers_at_once", files=train_files,
    side_files=frozenset({*EVALUATED_FILES, SECOND_SEED}),
    check="sae_genomics.sae.settings:check", cost="sae_genomics.sae.cost:cost", packages_key="sae.loggers",
    contributions=("sae_genomics.report.contributions.training:TRAINING",),
    gpu=True, gpus_key="sae.gpus_per_task", reads_repeatedly=True, swept=True,
)  # fmt: skip
_ASSOCIATE = Stage(
    name="associate", number=4, unit="layer", needs=(_TRAIN,), reads=(_PREPARE, _EXTRACT, _TRAIN), root="results",
    keys=("run.seed", "associations", "validation.baselines", "validation.untrained_cells"), version=2,
    ignores=frozenset(VARYING_KEYS), varying=VARYING_KEYS,
    function="sae_genomics.associations.task:run_task", files=associate_files, gpu=True,
    side_files=frozenset({"features.h5ad"}), later_files=frozenset({UNTRAINED}), cost="sae_genomics.associations.cost:cost",
    contributions=(
        "sae_genomics.report.contributions.features:BEST_FEATURES", "sae_genomics.report.contributions.units:UNITS",
        "sae_genomics.report.contributions.labels:LABELS", "sae_genomics.report.contributions.concepts:CONCEPTS",
        "sae_genomics.report.contributions.examples:EXAMPLES", "sae_genomics.report.contributions.items:ITEMS",
    ),
)  # fmt: skip
_VALIDATE = Stage(
    name="validate", number=5, unit="layer", needs=(_ASSOCIATE,), reads=(_ASSOCIATE,), root="results",
    keys=("run.seed", "validation"), version=3,
    function="sae_genomics.validation.task:run_task", files=validate_files, applies=has_gene_sets,
    check="sae_genomics.validation.settings:check", cost="sae_genomics.validation.cost:cost",
    trial="sae_genomics.validation.trial:count_terms",
    contributions=(
        "sae_genomics.report.contributions.gene_sets:GENE_SETS", "sae_genomics.report.contributions.network:NETWORK",
        "sae_genomics.report.contributions.regulons:REGULONS",
    ),
)  # fmt: skip
_CONCEPTS = Stage(
    name="concepts", number=6, unit="layer", needs=(_TRAIN,), reads=(_PREPARE, _EXTRACT, _TRAIN), root="results",
    keys=("run.seed", "concepts", "validation.builtin", "validation.gmt", "validation.sources"), applies=has_concepts, gpu=True, version=2,
    function="sae_genomics.concepts.task:run_task", files=concepts_files, check="sae_genomics.concepts.settings:check",
    cost="sae_genomics.concepts.cost:cost",
    contributions=("sae_genomics.report.contributions.concept_vectors:CONCEPT_VECTORS_PART",),
)  # fmt: skip
_CAUSAL = Stage(
    name="causal", number=7, unit="layer", needs=(_ASSOCIATE, _CONCEPTS),
    reads=(_PREPARE, _EXTRACT, _TRAIN, _ASSOCIATE, _CONCEPTS), root="results",
    keys=("run.seed", "causal"), applies=has_causal, gpu=True,
    function="sae_genomics.causal.task:run_task", files=causal_files, cost="sae_genomics.causal.cost:cost",
    contributions=("sae_genomics.report.contributions.causal:CAUSAL",),
    check="sae_genomics.causal.settings:check",
)  # fmt: skip
_CROSS_LAYER = Stage(
    name="cross_layer", number=8, unit="run", needs=(_ASSOCIATE, _VALIDATE),
    reads=(_PREPARE, _EXTRACT, _TRAIN, _ASSOCIATE, _VALIDATE), root="results",
    keys=("run.seed", "cross_layer", "validation.fdr"), applies=has_cross_layer, gpu=True,
    function="sae_genomics.cross_layer.task:run_task", files=cross_layer_files, cost="sae_genomics.cross_layer.cost:cost",
    check="sae_genomics.cross_layer.settings:check",
    contributions=("sae_genomics.report.contributions.cross_layer:CROSS_LAYER",),
)  # fmt: skip
_REPORT = Stage(
    name="report", number=9, unit="run", needs=(), reads=(), root="results", keys=("report",),
    function="sae_genomics.report.task:run_task", partial=True,
    files=lambda run, task: report_files(run, stages_of(run)),
    cost="sae_genomics.report.cost:cost",
)  # fmt: skip


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    """By number. What is made of whatever is done comes last: it needs all the others, and reads all but the large files of shards."""
    work = sorted((stage for stage in stages if not stage.partial), key=lambda stage: stage.number)
    reads = tuple(stage for stage in work if stage.unit != "shard")
    return work + [replace(stage, needs=tuple(work), reads=reads) for stage in stages if stage.partial]


STAGES: list[Stage] = _in_order(
    (_PREPARE, _EXTRACT, _TRAIN, _ASSOCIATE, _VALIDATE, _CONCEPTS, _CAUSAL, _CROSS_LAYER, _REPORT)
)


def register(stage: Stage) -> None:
    """Add a stage that another package brings. Raises ValueError when its name or number is taken."""
    if any(stage.name == each.name or stage.number == each.number for each in STAGES):
        raise ValueError(f"stage {stage.number:02d} {stage.name}: there is a stage of that name or number")
    STAGES[:] = _in_order([*STAGES, stage])


def register_installed() -> None:
    """Add the stages of installed packages: their entry points in the group `sae_genomics.stages`, each named as its stage."""
    for entry in entries("sae_genomics.stages"):
        if all(entry.name != stage.name for stage in STAGES):
            register(entry.load())


def stages_of(run: Run) -> list[Stage]:
    """The stages that a run has, in the pipeline's order."""
    return [stage for stage in STAGES if stage.applies(run)]


def stage_of(run: Run, name: str) -> Stage:
    """The run's stage of that name. Raises UserError listing its stages, also for a stage that other runs have."""
    stage = stage_named(name)
    if not stage.applies(run):
        own = ", ".join(each.name for each in stages_of(run))
        raise UserError(f"stage {name} does not apply to run {run.name}; its stages are {own}")
    return stage


def stage_named(name: str) -> Stage:
    """The stage of that name. Raises UserError listing the names there are."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise UserError(f"no stage {name!r}; the stages are {', '.join(stage.name for stage in STAGES)}")
