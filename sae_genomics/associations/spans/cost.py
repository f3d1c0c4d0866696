"""What spans add to the cost of `associate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae_genomics.data.plan import Workload

# A value of a feature, neuron, random direction or score at one residue: 34 to 40 ns on one core (the demo's proteins), projection included.
_VALUE_SECONDS = 4e-8
_PAIR_BYTES = 160 + 112  # of a unit and a concept: `counts.ConceptCounts`, and the scores made of it


def seconds(work: Workload) -> float:
    """All layers one after the other, on one core: every residue of proteins that can tell has so many values."""
    values = work.k + work.d_model + work.random_directions + work.n_concepts
    projections = 2 * work.d_model * work.random_directions / work.train_rate
    return work.n_layers * work.span_tokens * (values * _VALUE_SECONDS + projections)


def memory(work: Workload) -> int:
    """One task. Neurons and directions are two units each, one per sign; the scores of the sequence alone are two per concept."""
    units = work.d_sae + 2 * (work.d_model + work.random_directions + work.n_concepts)
    return _PAIR_BYTES * units * work.n_concepts
