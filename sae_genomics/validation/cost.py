"""What `validate` costs."""

from __future__ import annotations

from sae_genomics.associations.cost import ranked_pairs
from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload

_RANKED_MEMORY = 60  # bytes of a ranked gene: as it is read, sorted, and its score


def cost(work: Workload) -> Cost:
    """Tests per feature, the nulls included."""
    memory = BASE_MEMORY + work.d_sae * 20_000 + _RANKED_MEMORY * ranked_pairs(work, work.d_sae)
    return Cost(work.n_layers * work.d_sae * 2_000, memory, work.n_layers * (1 + work.d_sae / 2_000))
