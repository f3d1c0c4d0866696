"""What a run will cost: disk, memory and time of every stage, from the counted tokens.

Disk of `extract` and `train` follows from the formats and is right to a few per cent; the rest is small. Memory is an
upper estimate a task. Time is rough: a stage's arithmetic over the rate that such a device usually sustains.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_genomics.data.disk import size_text
from sae_genomics.data.plan_baselines import SCRATCH_ENTRY, baseline_costs, peak_memory, peak_scratch
from sae_genomics.errors import UserError
from sae_genomics.stages import STAGES

if TYPE_CHECKING:
    from pathlib import Path

    from sae_genomics.run import Run

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
TOKEN_BYTES = 20  # cell, gene, expression, value
CHUNK_BYTES = 1 << 20  # of the activation files
FILE_BYTES = 24_000  # HDF5's own structures in a file

# Sustained FLOP/s: of one CPU core with AVX-512 (measured, docs/performance.md), one data-centre GPU, one Apple GPU.
CPU_CORE_RATE = {"float32": 65e9, "float16": 65e9, "bfloat16": 100e9}
GPU_RATE = {"float32": 15e12, "float16": 120e12, "bfloat16": 120e12}
MPS_RATE = 2e12
_BASE_MEMORY = 750 << 20  # an interpreter with torch, numba and pandas
_WINDOW_MEMORY = 2 * (256 << 20)  # activations waiting to be written
_BATCH_MEMORY = 3 << 30  # activations waiting to be trained on, at most, and
_BATCH_ROWS = 3 << 18  # so many rows of them
_CHECKPOINTS = 3  # of one training: the last, the one before it, and the next one while it is written
_HIDDEN_MEMORY = 3 * (64 << 20)  # latents before the k largest are taken
_PAIR_MEMORY = 2 << 30  # dense sums a (feature, gene) pair; rarer genes go to hash tables


@dataclass(frozen=True)
class Workload:
    """What the estimates depend on.

    n_tokens: tokens the model reads, special ones included. shard_stored: int64 [shards], those that are stored.
    max_shard_tokens: tokens read of the largest shard. n_slots: distinct matched genes. n_gene_values: counts above zero of such a
    gene in a cell. sampled_cells: that `associate` ranks, at most. n_layers: layers requested.
    layers_at_once: layers that one process trains at once, as far as the config says so.
    deepest: layers the model runs through; summed_depth: the same of each requested layer alone, added up. train_tokens: tokens that one SAE sees. seeds: SAEs trained a layer.
    item_bytes: of a stored activation.
    extract_rate, train_rate: FLOP/s.
    baselines, untrained_cells: as in the section `validation`.
    """

    n_cells: int
    n_tokens: int
    shard_stored: npt.NDArray[np.int64]
    max_shard_tokens: int
    n_slots: int
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

    @property
    def n_stored(self) -> int:
        """Tokens stored, special ones included."""
        return int(self.shard_stored.sum())


@dataclass(frozen=True)
class Estimate:
    """One stage. tasks: how many. disk_bytes: all of them together, when done. memory_bytes: one task. seconds: all
    tasks one after the other on one device, rough. scratch_bytes: temporary files in checkpoints while all of them run side by side."""

    stage: str
    tasks: int
    disk_bytes: int
    memory_bytes: int
    seconds: float
    scratch_bytes: int = 0


def workload(
    run: Run,
    *,
    n_tokens: int,
    shard_stored: npt.NDArray[np.int64],
    max_shard_tokens: int,
    n_slots: int,
    n_gene_values: int,
    n_cell_types: int,
    train_tokens: int,
) -> Workload:
    """The numbers of a run, its config and model filled in.

    train_tokens: gene tokens of the cells that SAEs are trained on. Raises UserError when there is none.
    """
    config, info = run.config, run.model_info
    if not train_tokens:
        raise UserError(
            f"there is no token to train on: no cell that is not held out has a count of a gene that {info.name} knows; "
            f"lower data.heldout_fraction, or check data.gene_key"
        )
    return Workload(
        n_cells=run.n_items,
        n_tokens=n_tokens,
        shard_stored=shard_stored,
        max_shard_tokens=max_shard_tokens,
        n_slots=n_slots,
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
        seeds=2 if config.sae.stability else 1,
        evaluate_tokens=config.sae.evaluate_tokens,
        batch_tokens=max(config.activations.batch_tokens, config.sae.batch_tokens),
        item_bytes=ITEM_BYTES[config.activations.dtype],
        extract_rate=device_rate(config.model.device, config.model.compute_dtype),
        train_rate=device_rate(config.sae.device, config.sae.compute_dtype),
        top_genes=config.associations.top_genes,
        n_cell_types=n_cell_types,
        baselines=tuple(config.validation.baselines),
        untrained_cells=min(run.n_items, config.validation.untrained_cells),
    )


def estimate(run: Run, work: Workload) -> list[Estimate]:
    """One estimate for each stage of the pipeline, in its order."""
    known = {
        "prepare": _prepare, "extract": _extract, "train": _train, "associate": _associate, "validate": _validate,
        "report": _report,
    }  # fmt: skip
    estimates = []
    for stage in STAGES:
        tasks = run.n_tasks(stage)
        disk, memory, seconds = known.get(stage.name, _other)(work)
        scratch = int(_associate_scratch(work)) if stage.name == "associate" else 0
        estimates.append(Estimate(stage.name, tasks, int(disk), int(memory), round(float(seconds), 1), scratch))
    return estimates


def disk_needs(run: Run, estimates: list[Estimate]) -> dict[Path, int]:
    """Bytes that go to each root of the run, scratch data included."""
    needs = {run.checkpoints: 0, run.results: 0}
    for each, stage in zip(estimates, STAGES, strict=True):
        needs[run.checkpoints if stage.root == "checkpoints" else run.results] += each.disk_bytes
        needs[run.checkpoints] += each.scratch_bytes
    return needs


def savings(work: Workload, stored_with: dict[int, int], room: int) -> str:
    """What to change when the disk is too small, each with what the activations would then take.

    stored_with: tokens_per_cell, descending -> tokens stored with it. room: bytes that activations may take.
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
        options.append(f"activations.tokens_per_cell: {tokens} ({size_text(smaller[tokens])})")
    cells = int(work.n_cells * room / max(full, 1))
    if 0 < cells < work.n_cells:
        options.append(f"data.max_cells: {cells}")
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


Costs = tuple[float, float, float]


def _prepare(work: Workload) -> Costs:
    return 60 * work.n_cells + 60 * work.n_slots, _BASE_MEMORY + 60 * work.n_cells, 2 + work.n_tokens / 5e6


def _extract(work: Workload) -> Costs:
    row_bytes = work.d_model * work.item_bytes
    chunk = max(CHUNK_BYTES // row_bytes, 1)
    # a shard's last chunk takes its full size, unless it is the only one
    padded = np.where(work.shard_stored > chunk, -(-work.shard_stored // chunk) * chunk, work.shard_stored)
    layer = int(padded.sum()) * row_bytes + len(padded) * FILE_BYTES
    disk = work.n_layers * layer + TOKEN_BYTES * work.n_stored + 8 * work.n_cells + len(padded) * FILE_BYTES
    memory = _BASE_MEMORY + 4 * work.n_parameters + _WINDOW_MEMORY + 100 * work.max_shard_tokens
    memory += work.batch_tokens * work.d_model * 4 * 16
    mean_length = work.n_tokens / max(work.n_cells, 1)
    flops = work.n_tokens * work.deepest * (24 * work.d_model**2 + 4 * mean_length * work.d_model)
    return disk, memory, 10 + flops / work.extract_rate + disk / 1e9


def _sae_parameters(work: Workload) -> int:
    return 2 * work.d_model * work.d_sae + work.d_sae + work.d_model


def _train(work: Workload) -> Costs:
    # a layer's checkpoints (weights and two moments each) go when it is done
    weights = 4 * _sae_parameters(work)
    disk = work.n_layers * (weights + 100_000) + work.layers_at_once * 3 * _CHECKPOINTS * weights
    activations = min(_BATCH_MEMORY, min(_BATCH_ROWS, 2 * work.n_stored) * work.d_model * work.item_bytes)
    means = 16 * work.n_slots * work.d_model  # of each gene, and the sums that they are made of
    memory = _BASE_MEMORY + work.layers_at_once * (5 * weights + activations + means + _HIDDEN_MEMORY)
    # a step costs little more than its encoder's product; training and held-out rows are evaluated
    flops = (work.train_tokens + 2 * work.evaluate_tokens) * 2 * work.d_model * work.d_sae
    return disk, memory, work.n_layers * (5 + work.seeds * flops / work.train_rate)


def _active_features(work: Workload) -> float:
    """Distinct features a cell, if they were drawn at random."""
    tokens = work.n_stored / max(work.n_cells, 1)
    return work.d_sae * -math.expm1(-tokens * work.k / work.d_sae)


def _associate_scratch(work: Workload) -> float:
    """A sampled cell leaves one value for each unit of the baselines, for each gene and for each feature that it has.

    The untrained model's activations are gone again before that.
    """
    genes = work.n_gene_values / max(work.n_cells, 1)
    values = work.n_layers * work.sampled_cells * (genes + _active_features(work)) * SCRATCH_ENTRY
    costs = baseline_costs(work)
    linear = peak_scratch([cost for cost in costs if cost.name != "untrained"])
    return max(values + linear, peak_scratch(costs))


def _associate(work: Workload) -> Costs:
    costs = baseline_costs(work)
    disk = work.n_layers * (
        work.n_cells * _active_features(work) * 10 + work.d_sae * (2 * work.top_genes * 25 + 60 * work.n_cell_types)
    )
    disk += work.n_layers * 40 * work.n_slots + sum(cost.disk_bytes for cost in costs)
    pairs = 24 * work.d_sae * work.n_slots
    in_pass = 2 * 4 * _sae_parameters(work) + min(pairs, _PAIR_MEMORY) + 200 * work.n_cells + _HIDDEN_MEMORY
    in_pass += peak_memory([cost for cost in costs if cost.name != "untrained"])
    seconds = work.n_layers * (10 + work.n_stored * 2 * work.d_model * work.d_sae / work.train_rate)
    seconds += sum(cost.seconds for cost in costs)
    return disk, _BASE_MEMORY + max(in_pass, peak_memory(costs)), seconds


def _validate(work: Workload) -> Costs:
    return (
        work.n_layers * work.d_sae * 2_000,
        _BASE_MEMORY + work.d_sae * 20_000,
        work.n_layers * (1 + work.d_sae / 2_000),
    )


def _report(work: Workload) -> Costs:
    return (
        5_000_000 + work.n_layers * work.d_sae * 1_500,
        _BASE_MEMORY + work.n_layers * work.d_sae * 20_000,
        10 + 2 * work.n_layers,
    )


def _other(work: Workload) -> Costs:
    return work.n_layers * work.d_sae * 2_000, _BASE_MEMORY, 60 * work.n_layers
