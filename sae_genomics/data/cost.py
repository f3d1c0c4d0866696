"""What `prepare` costs."""

from __future__ import annotations

from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload


def cost(work: Workload) -> Cost:
    """Tables of the items and the units; the input is read once, and again in blocks."""
    disk = 60 * work.n_cells + 60 * work.n_units
    return Cost(disk, BASE_MEMORY + 60 * work.n_cells, 2 + work.n_tokens / 5e6)
