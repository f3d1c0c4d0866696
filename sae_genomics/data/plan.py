"""What a run will cost: disk, memory and time of every stage, from the counted tokens. Each stage says its own (`Stage.cost`).

Disk of `extract` and `train` follows from the formats and is right to a few per cent; the rest is small. Memory is an
upper estimate per task. Time is rough: a stage's arithmetic over the rate that such a device usually sustains.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.accumulators import keeps_rankings
from sae_genomics.data.disk import size_text
from sae_genomics.errors import UserError
from sae_genomics.file_keys import database_edges, expanded
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.stage import Stage, named
from sae_genomics.stages import stage_named, stages_of

if TYPE_CHECKING:
    from pathlib import Path

    from sae_genomics.data.kind import DataKind
    from sae_genomics.data.token_counts import TokenCounts
    from sae_genomics.run import Run

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# Sustained FLOP/s: of one CPU core with AVX-512 (measured, docs/performance.md), one data-centre GPU, one Apple GPU.
CPU_CORE_RATE = {"float32": 65e9, "float16": 65e9, "bfloat16": 100e9}
GPU_RATE = {"float32": 15e12, "float16": 120e12, "bfloat16": 120e12}
MPS_RATE = 2e12
BASE_MEMORY = 750 << 20  # an interpreter with torch, numba and pandas


@dataclass(frozen=True)
class Workload:
    """What the estimates depend on.

    n_tokens: tokens the model reads, special ones included. shard_stored: int64 [shards], those that are stored.
    max_shard_tokens: tokens read of the largest shard. n_units: distinct units (genes, amino acids) of the data. n_gene_values: counts above zero of such a
    gene in a cell. sampled_cells: that `associate` ranks, at most. n_layers: layers requested.
    layers_at_once: layers that one process trains at once, as far as the config says so.
    deepest: layers the model runs through; summed_depth: the same of each requested layer alone, added up. train_tokens: tokens that one SAE sees. seeds: SAEs trained per layer.
    item_bytes: of a stored activation.
    extract_rate, train_rate: FLOP/s.
    baselines, untrained_cells: as in the section `validation`, those that the kind of data has.
    span_tokens: tokens stored of items with a span. n_concepts: of spans. random_directions: that are compared with spans.
    trains: whether SAEs are trained, and not published ones used.
    dense_rows: rows of a training step whose latents are all kept for its gradient; 0 where active ones alone are.
    whole_rankings: whether the test of gene sets reads them. n_networks: downloaded networks that top genes are compared with.
    causal_passes, causal_screen_items: of a layer, items that `causal` runs behind the hook with an edit, and items of its screen.
    centred: whether the mean of each unit is kept beside an SAE.
    """

    n_cells: int
    n_tokens: int
    shard_stored: npt.NDArray[np.int64]
    max_shard_tokens: int
    n_units: int
    n_gene_values: int
    sampled_cells: int
    n_layers: int
    layers_at_once: int
    deepest: int
    summed_depth: int
    d_model: int
    max_length: int
    n_parameters: int
    d_sae: int
    k: int
    train_tokens: int
    seeds: int
    evaluate_tokens: int
    batch_tokens: int
    item_bytes: int
    extract_rate: float
    train_rate: float
    top_genes: int
    n_cell_types: int
    baselines: tuple[str, ...]
    untrained_cells: int
    span_tokens: int = 0
    n_concepts: int = 0
    trains: bool = True
    random_directions: int = 0
    dense_rows: int = 0
    whole_rankings: bool = False
    n_networks: int = 0
    causal_passes: int = 0
    causal_screen_items: int = 0
    centred: bool = False

    @property
    def n_stored(self) -> int:
        """Tokens stored, special ones included."""
        return int(self.shard_stored.sum())


@dataclass(frozen=True)
class Cost:
    """What a stage's own cost function says of all its tasks; `Estimate` has the fields' meaning."""

    disk_bytes: float
    memory_bytes: float
    seconds: float
    scratch_bytes: float = 0
    checkpoint_bytes: float = 0


@dataclass(frozen=True)
class Estimate:
    """One stage. tasks: how many. disk_bytes: all of them together, when done. memory_bytes: one task. seconds: all
    tasks one after the other on one device, rough. scratch_bytes: temporary files in checkpoints while all of them run side by side.
    checkpoint_bytes: of disk_bytes, what goes to checkpoints although the stage's root is results."""

    stage: str
    tasks: int
    disk_bytes: int
    memory_bytes: int
    seconds: float
    scratch_bytes: int = 0
    checkpoint_bytes: int = 0


def _networks(run: Run) -> int:
    if not run.kind.units_are_genes:
        return 0
    return len(database_edges(run.config.validation.network, expanded(run.config.paths.databases), directed=False))


def workload(
    run: Run,
    tokens: TokenCounts,
    *,
    n_units: int,
    n_gene_values: int,
    n_cell_types: int,
    train_tokens: int,
    span_tokens: int = 0,
    n_concepts: int = 0,
) -> Workload:
    """The numbers of a run, its config and model filled in.

    train_tokens: gene tokens of the cells that SAEs are trained on. Raises UserError when there is none.
    """
    config, info = run.config, run.model_info
    if not train_tokens:
        nouns, has_key = run.kind.nouns, "gene_key" in run.kind.section.model_fields
        raise UserError(
            f"there is no token to train on: no {nouns.item} that is not held out has a {nouns.unit} that {info.name} knows; "
            f"lower data.heldout_fraction{', or check data.gene_key' if has_key else ''}"
        )
    return Workload(
        n_cells=run.n_items,
        n_tokens=tokens.read,
        shard_stored=tokens.shard_stored,
        max_shard_tokens=tokens.largest_shard,
        n_units=n_units,
        n_gene_values=n_gene_values,
        sampled_cells=min(run.n_items, 2 * config.associations.max_auroc_cells) if n_cell_types else 0,
        n_layers=len(run.layers),
        layers_at_once=min(config.sae.layers_at_once or 1, len(run.layers)),
        deepest=max(run.layers) + 1,
        summed_depth=sum(layer + 1 for layer in run.layers),
        d_model=info.d_model,
        max_length=info.max_length,
        n_parameters=info.n_parameters or 12 * info.d_model**2 * info.n_layers + 60_000 * info.d_model,
        d_sae=run.d_sae,
        k=config.sae.k,
        train_tokens=config.sae.steps * min(config.sae.batch_tokens, train_tokens),
        trains=config.sae.from_ is None,
        seeds=2 if config.sae.second_seed else 1,
        evaluate_tokens=config.sae.evaluate_tokens,
        batch_tokens=max(config.activations.batch_tokens, config.sae.batch_tokens),
        item_bytes=ITEM_BYTES[config.activations.dtype],
        extract_rate=device_rate(config.model.device, config.model.compute_dtype),
        train_rate=device_rate(config.sae.device, config.sae.compute_dtype),
        top_genes=config.associations.top_genes,
        n_cell_types=n_cell_types,
        baselines=tuple(
            name for name in config.validation.baselines if run.kind.units_are_genes or name != "untrained"
        ),
        untrained_cells=min(run.n_items, config.validation.untrained_cells),
        span_tokens=span_tokens,
        n_concepts=n_concepts,
        random_directions=config.associations.random_directions,
        dense_rows=config.sae.batch_tokens if architecture_named(config.sae.architecture).dense else 0,
        whole_rankings=keeps_rankings(run),
        n_networks=_networks(run),
        causal_passes=config.causal.passes,
        causal_screen_items=config.causal.screen_items,
        centred=config.sae.centre == "unit",
    )


def estimate(run: Run, work: Workload) -> list[Estimate]:
    """One estimate for each stage of the pipeline, in its order."""
    estimates = []
    for stage in stages_of(run):
        cost = _cost(stage, work)
        disk, memory, scratch = int(cost.disk_bytes), int(cost.memory_bytes), int(cost.scratch_bytes)
        seconds = round(float(cost.seconds), 1)
        kept = int(cost.checkpoint_bytes)
        estimates.append(Estimate(stage.name, run.n_tasks(stage), disk, memory, seconds, scratch, kept))
    return estimates


def _cost(stage: Stage, work: Workload) -> Cost:
    """By the stage's own function. One that has none leaves a small table per layer, a minute each."""
    if stage.cost:
        found: Cost = named(stage.cost)(work)
        return found
    return Cost(work.n_layers * work.d_sae * 2_000, BASE_MEMORY, 60 * work.n_layers)


def disk_needs(run: Run, estimates: list[Estimate]) -> dict[Path, int]:
    """Bytes that go to each root of the run, scratch data included."""
    needs = {run.checkpoints: 0, run.results: 0}
    for each in estimates:
        root = run.checkpoints if stage_named(each.stage).root == "checkpoints" else run.results
        needs[root] += each.disk_bytes - each.checkpoint_bytes
        needs[run.checkpoints] += each.checkpoint_bytes + each.scratch_bytes
    return needs


def disk_of_shards(estimates: list[Estimate]) -> int:
    """Bytes of the activations: what is written per shard."""
    return sum(each.disk_bytes for each in estimates if stage_named(each.stage).unit == "shard")


def savings(kind: DataKind, work: Workload, stored_with: dict[int, int], room: int) -> str:
    """What to change when the disk is too small, each with what the activations would then take.

    stored_with: tokens per item, descending -> tokens stored with so many. room: bytes that activations may take.
    """
    token_bytes = work.n_layers * work.d_model * work.item_bytes
    full = work.n_stored * token_bytes
    options = []
    if work.item_bytes == 4:
        options.append(
            f"activations.dtype: float16 ({size_text(full / 2)} of activations instead of {size_text(full)})"
        )
    if work.n_layers > 1:
        options.append(f"fewer model.layers ({size_text(full / work.n_layers)} each)")
    smaller = {tokens: stored * token_bytes for tokens, stored in stored_with.items() if stored < work.n_stored}
    if smaller:
        fitting = [tokens for tokens, n_bytes in smaller.items() if n_bytes <= room]
        tokens = fitting[0] if fitting else min(smaller)
        options.append(f"{kind.key('activations.tokens_per_item')}: {tokens} ({size_text(smaller[tokens])})")
    items = int(work.n_cells * room / max(full, 1))
    if 0 < items < work.n_cells:
        options.append(f"{kind.key('data.max_items')}: {items}")
    return f"set {', or '.join([*options, 'paths.checkpoints to a folder on a larger disk'])}"


def as_dicts(estimates: list[Estimate]) -> list[dict[str, Any]]:
    """For plan.json."""
    return [asdict(each) for each in estimates]


def device_rate(device: str, dtype: str) -> float:
    """FLOP/s that the device usually sustains in that arithmetic; `auto` is judged by the machine this runs on."""
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device.startswith("cuda"):
        return GPU_RATE[dtype]
    if device == "mps":
        return MPS_RATE
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return CPU_CORE_RATE[dtype] * cores
