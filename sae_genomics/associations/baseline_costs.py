"""What each baseline of `validation.baselines` adds to the cost of `associate`: its pass, its tables, its scratch data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_genomics.data.disk import size_text
from sae_genomics.progress import duration

if TYPE_CHECKING:
    from sae_genomics.data.plan import Workload

# Those of `associations/components.py` and `associations/untrained.py`, which load compiled code; a test compares.
MAX_COMPONENTS = 256
FIT_ROWS, FIT_BYTES = 1 << 16, 1 << 28
ICA_ITERATIONS = 200
SHARE_OF_STEPS = 10

SCRATCH_ENTRY = 12  # bytes of one value of one sampled cell
_ROW_BYTES = 36  # of a table of genes, on the disk
_SUM_BYTES = 2 * 20  # two float64 and an int32, of each component, sign and gene
_SUM_SECONDS = 4e-9  # of a component and a token, one core
_FIT_RATE = 40e9  # FLOP/s of one core in the products of components
_PAIR_MEMORY = 2 << 30


@dataclass(frozen=True)
class BaselineCost:
    """One baseline. units: of a layer. disk_bytes: its tables, and the untrained model's SAEs, all layers. scratch_bytes: while all layers run side by side.

    memory_bytes: one task. seconds: all layers one after the other on one device, rough.
    """

    name: str
    units: int
    disk_bytes: int
    scratch_bytes: int
    memory_bytes: int
    seconds: float


def baseline_costs(work: Workload) -> list[BaselineCost]:
    """One entry per baseline of the run, in the config's order."""
    costs_of_baselines = []
    for name in work.baselines:
        cost = _untrained(work) if name == "untrained" else _linear(work, name)
        costs_of_baselines.append(cost)
    return costs_of_baselines


def sentence(costs: list[BaselineCost]) -> str:
    """What the baselines cost, for the plan in a few lines."""
    if not costs:
        return "no baselines (validation.baselines is empty)"
    listed = ", ".join(f"{cost.name} {duration(cost.seconds)}" for cost in costs)
    disk = sum(cost.disk_bytes for cost in costs)
    scratch, memory = peak_scratch(costs), peak_memory(costs)
    return (
        f"of that the baselines: roughly {listed}; {size_text(disk)} of tables, {size_text(scratch)} of scratch data, up to "
        f"{size_text(memory)} of memory; validation.baselines chooses"
    )


def peak_memory(costs: list[BaselineCost]) -> int:
    """Of one task: the untrained model is done before the pass in which all others are added up."""
    return max(_sum(costs, "memory_bytes"), *(cost.memory_bytes for cost in costs if cost.name == "untrained"), 0)


def peak_scratch(costs: list[BaselineCost]) -> int:
    """Of all layers side by side, likewise."""
    return max(_sum(costs, "scratch_bytes"), *(cost.scratch_bytes for cost in costs if cost.name == "untrained"), 0)


def _sum(costs: list[BaselineCost], field: str) -> int:
    return sum(int(getattr(cost, field)) for cost in costs if cost.name != "untrained")


def _linear(work: Workload, name: str) -> BaselineCost:
    """Raw neurons or components, both signs."""
    n = work.d_model if name == "neurons" else min(work.d_model, MAX_COMPONENTS)
    memory = _SUM_BYTES * n * work.n_units
    seconds = work.n_stored * n * _SUM_SECONDS
    if name != "neurons":
        rows = min(FIT_ROWS, FIT_BYTES // (4 * work.d_model), work.n_stored)
        memory += rows * (4 * work.d_model + 8 * work.d_model + 12 * n)
        seconds += 2 * rows * work.d_model * (work.d_model + n) / _FIT_RATE
        seconds += work.n_stored * 2 * work.d_model * n / work.train_rate
        if name == "ica":
            seconds += ICA_ITERATIONS * rows * n * (4 * n + 20) / _FIT_RATE
    return BaselineCost(
        name,
        2 * n,
        _table_bytes(work, 2 * n),
        work.n_layers * work.sampled_cells * 2 * n * SCRATCH_ENTRY,
        memory,
        round(work.n_layers * seconds, 3),
    )


def _untrained(work: Workload) -> BaselineCost:
    """Forward passes of some cells up to each layer, a tenth of a training, and the sums of its features."""
    share = min(1.0, work.untrained_cells / max(work.n_cells, 1))
    read, stored = work.n_tokens * share, work.n_stored * share
    length = work.n_tokens / max(work.n_cells, 1)
    forward = read * work.summed_depth * (24 * work.d_model**2 + 4 * length * work.d_model) / work.extract_rate
    rows = work.train_tokens / SHARE_OF_STEPS + stored
    encoding = work.n_layers * rows * 2 * work.d_model * work.d_sae / work.train_rate
    weights = _weights_bytes(work)
    active = work.d_sae * -math.expm1(-length * work.k / work.d_sae)
    ranked = min(work.sampled_cells, work.untrained_cells) * active * SCRATCH_ENTRY
    activations = stored * work.d_model * work.item_bytes
    memory = 4 * work.n_parameters + 5 * weights + min(activations, 3 << 30) + work.batch_tokens * work.d_model * 4 * 16
    memory += min(24 * work.d_sae * work.n_units, _PAIR_MEMORY)
    return BaselineCost(
        "untrained",
        work.d_sae,
        _table_bytes(work, work.d_sae) + untrained_sae_bytes(work),
        int(work.n_layers * (activations + max(6 * weights, ranked))),
        int(memory),
        round(float(forward + encoding + work.n_layers * (5 + work.n_parameters / 50e6)), 3),
    )


def untrained_sae_bytes(work: Workload) -> int:
    """What the baseline `untrained` leaves in checkpoints, all layers: an SAE each, and the means that it subtracts."""
    means = work.n_units * (4 * work.d_model + 16) if work.centred else 0
    return work.n_layers * (_weights_bytes(work) + means)


def _weights_bytes(work: Workload) -> int:
    return 4 * (2 * work.d_model * work.d_sae + work.d_sae + work.d_model)


def _table_bytes(work: Workload, units: int) -> int:
    return work.n_layers * units * min(2 * work.top_genes, work.n_units) * _ROW_BYTES
