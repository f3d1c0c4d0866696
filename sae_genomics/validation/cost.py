"""What `validate` costs."""

from __future__ import annotations

from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload


def cost(work: Workload) -> Cost:
    """Tests per feature, the nulls included."""
    memory = BASE_MEMORY + work.d_sae * 20_000
    return Cost(work.n_layers * work.d_sae * 2_000, memory, work.n_layers * (1 + work.d_sae / 2_000))
