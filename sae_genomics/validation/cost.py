"""What `validate` costs."""

from __future__ import annotations

from sae_genomics.associations.cost import ranked_pairs
from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload

_RANKED_MEMORY = 60  # bytes of a ranked gene: as it is read, sorted, and its score
_CHANNELS = 3  # of a network such as STRING: functional, physical, experimental
_LIST_SECONDS = 5e-3  # of one list in one channel of 18 000 genes: 1 ms with 260 draws, 30 ms with 10 000
_NULL_REPEATS = 2  # `network_tables.NULL_REPEATS`, which needs numba to be read
_NETWORK_MEMORY = 1 << 30  # of one network while it is read


def cost(work: Workload) -> Cost:
    """Tests per feature, the nulls included; the draws of each network for features and baselines."""
    memory = BASE_MEMORY + work.d_sae * 20_000 + _RANKED_MEMORY * ranked_pairs(work, work.d_sae)
    lists = work.n_networks * _CHANNELS * (1 + len(work.baselines)) * (1 + _NULL_REPEATS) * work.d_sae
    seconds = 1 + work.d_sae / 2_000 + lists * _LIST_SECONDS
    return Cost(
        work.n_layers * work.d_sae * 2_000, memory + _NETWORK_MEMORY * (work.n_networks > 0), work.n_layers * seconds
    )
