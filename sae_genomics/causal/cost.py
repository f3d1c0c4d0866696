"""What `causal` costs."""

from __future__ import annotations

from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload


def cost(work: Workload) -> Cost:
    """Tables, memory and time."""
    return Cost(work.n_layers * work.d_sae * 1_000, BASE_MEMORY, work.n_layers * (5 + work.d_sae / 500))
