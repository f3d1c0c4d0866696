"""What `report` costs."""

from __future__ import annotations

from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload


def cost(work: Workload) -> Cost:
    """Every layer's tables are held at once."""
    memory = BASE_MEMORY + work.n_layers * work.d_sae * 20_000
    return Cost(5_000_000 + work.n_layers * work.d_sae * 1_500, memory, 10 + 2 * work.n_layers)
