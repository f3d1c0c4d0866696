"""What `concepts` costs."""

from __future__ import annotations

from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload

_READ_BYTES_PER_SECOND = 500e6
_MOST_CONCEPTS = 200
_ROWS = 4_000  # of one concept
_STEPS = 60  # products of the rows with the directions of all draws, until a fit has converged
_DRAWS = 200
_ITEMS, _MOST_TOKENS, _GENE_TOKENS = 4_000, 200_000, 20_000  # rows that are kept, by default
_RATE = 20e9  # FLOP/s of a core on such products


def cost(work: Workload) -> Cost:
    """Tables, memory and time: a pass over the activations, and about 200 fits per concept."""
    concepts = min(work.n_cell_types + work.n_concepts + 10, 2 * _MOST_CONCEPTS)
    reading = work.n_stored * work.d_model * work.item_bytes / _READ_BYTES_PER_SECOND
    fitting = concepts * _STEPS * 4.0 * _ROWS * work.d_model * _DRAWS / _RATE
    rows = min(_ITEMS + (_MOST_TOKENS if work.n_concepts else _GENE_TOKENS), work.n_stored + work.n_cells)
    memory = BASE_MEMORY + 3.0 * 4 * rows * work.d_model + 40.0 * _ROWS * _DRAWS + 3 * 8.0 * work.d_model**2
    memory += concepts * 4.0 * _DRAWS * work.d_model  # vectors of the nulls, for TCAV
    disk = work.n_layers * concepts * (4 * work.d_model + 4_000)
    return Cost(disk, memory, work.n_layers * (2 + reading + fitting))
