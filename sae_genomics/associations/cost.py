"""What `associate` costs."""

from __future__ import annotations

import math

from sae_genomics.associations.baseline_costs import (
    SCRATCH_ENTRY,
    baseline_costs,
    peak_memory,
    peak_scratch,
    untrained_sae_bytes,
)
from sae_genomics.associations.spans import cost as spans
from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload
from sae_genomics.sae.cost import HIDDEN_MEMORY, sae_parameters

_RANKING_BYTES = 8  # of a row of rankings, compressed
_PAIR_MEMORY = 2 << 30  # dense sums per pair of a feature and a gene; rarer genes go to hash tables


def cost(work: Workload) -> Cost:
    """One pass over the activations per layer, its tables, and the shares of baselines and spans. The untrained model's SAEs go to checkpoints."""
    costs = baseline_costs(work)
    disk = work.n_layers * (
        work.n_cells * _active_features(work) * 10 + work.d_sae * (2 * work.top_genes * 25 + 60 * work.n_cell_types)
    )
    disk += work.n_layers * 40 * work.n_units + sum(baseline.disk_bytes for baseline in costs)
    disk += work.n_layers * _RANKING_BYTES * ranked_pairs(work, work.d_sae + sum(baseline.units for baseline in costs))
    pairs = 24 * work.d_sae * work.n_units
    in_pass = 2 * 4 * sae_parameters(work) + min(pairs, _PAIR_MEMORY) + 200 * work.n_cells + HIDDEN_MEMORY
    in_pass += peak_memory([baseline for baseline in costs if baseline.name != "untrained"]) + spans.memory(work)
    seconds = work.n_layers * (10 + work.n_stored * 2 * work.d_model * work.d_sae / work.train_rate)
    seconds += sum(baseline.seconds for baseline in costs) + spans.seconds(work)
    memory = BASE_MEMORY + max(in_pass, peak_memory(costs))
    kept = untrained_sae_bytes(work) if "untrained" in work.baselines else 0
    return Cost(disk, memory, seconds, _scratch_bytes(work), kept)


def ranked_pairs(work: Workload, n_units: int) -> float:
    """Pairs of a unit and a gene that have a row in the tables of rankings: half of all, at most about."""
    return 0.5 * n_units * work.n_units if work.whole_rankings else 0.0


def _active_features(work: Workload) -> float:
    """Distinct features per cell, if they were drawn at random."""
    tokens = work.n_stored / max(work.n_cells, 1)
    return work.d_sae * -math.expm1(-tokens * work.k / work.d_sae)


def _scratch_bytes(work: Workload) -> float:
    """A sampled cell leaves one value for each unit of the baselines, for each gene and for each feature that it has.

    The untrained model's activations are gone again before that.
    """
    genes = work.n_gene_values / max(work.n_cells, 1)
    values = work.n_layers * work.sampled_cells * (genes + _active_features(work)) * SCRATCH_ENTRY
    costs = baseline_costs(work)
    linear = peak_scratch([baseline for baseline in costs if baseline.name != "untrained"])
    return max(values + linear, peak_scratch(costs))
