"""The units that mark a label, chosen on other items than those whose predictions are asked for.

The held-out items are cut into two halves, whole groups together; what is asked of an item of one half are the markers of the other half. Were they
chosen on the items that the vector was fitted on, a label without any meaning would seem to have an effect: its vector and its markers would
share the same chance, and vectors of shuffled labels would not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.concepts.choosing import Scored, halves
from sae_genomics.concepts.concept import Concept, NamedConcepts
from sae_genomics.concepts.resampling import generator
from sae_genomics.items import CountItems
from sae_genomics.run import Run
from sae_genomics.sae.loss_recovered import evenly

MARKERS = 10
MARKER_ITEMS = 1000  # held-out items that markers are chosen on
CARRIERS = 50  # and of each concept so many that have it, where there are as many
LEAST = 2  # items with it and without, in each half
HALVES = (0, 1)
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Markers:
    """items: int64 [n], ascending. half: int8 [n, concepts]. units: concept and half they were chosen on -> units, the clearest first.
    A concept has markers of both halves, or none."""

    items: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    half: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros((0, 0), np.int8))
    units: dict[tuple[int, int], Int64] = field(default_factory=dict)

    def has(self, concept: int) -> bool:
        """Whether the concept has markers."""
        return (concept, HALVES[0]) in self.units

    def asked(self, concept: int, item: Int64, unit: npt.NDArray[np.integer]) -> Bool:
        """Whether each unit marks the concept for each of these items: those chosen on the other half. item, unit: [T]."""
        first = self.half[np.searchsorted(self.items, item), concept] == HALVES[0]
        found: Bool = np.where(
            first, np.isin(unit, self.units[concept, HALVES[1]]), np.isin(unit, self.units[concept, HALVES[0]])
        )
        return found

    def of(self, concept: int) -> Int64:
        """Those of both halves, each once; none without markers."""
        if not self.has(concept):
            return np.zeros(0, np.int64)
        both = np.concatenate([self.units[concept, half] for half in HALVES])
        return both[np.sort(np.unique(both, return_index=True)[1])]


def marker_units(run: Run, named: NamedConcepts, concepts: Sequence[Concept], asked: Int64, layer: int) -> Markers:
    """Markers of the concepts of items. asked: items whose predictions are asked for. None for items that are no counts."""
    numbers = np.array([number for number, each in enumerate(concepts) if each.level == "item"], np.int64)
    if not len(numbers):
        return Markers()
    held = np.flatnonzero(named.heldout | named.heldout_alone)
    carriers = [each.items[named.heldout_of(each)[each.items]] for each in (concepts[number] for number in numbers)]
    parts = [held[evenly(len(held), MARKER_ITEMS)], *(each[evenly(len(each), CARRIERS)] for each in carriers), asked]
    chosen = np.unique(np.concatenate(parts)).astype(np.int64)
    items = run.kind.read(run, chosen)
    if not isinstance(items, CountItems):
        return Markers()
    n = len(named.group)
    truth = np.stack([concepts[number].item_truth(n)[chosen] for number in numbers], axis=1)
    counted = (truth >= 0) & np.stack([named.heldout_of(concepts[number])[chosen] for number in numbers], axis=1)
    by_item = np.array([concepts[number].split_by == "item" for number in numbers], bool)
    half = np.zeros(truth.shape, np.int8)
    groups = np.unique(named.group[chosen], return_inverse=True)[1].reshape(-1)
    for columns, group in ((by_item, np.arange(len(chosen))), (~by_item, groups)):
        if columns.any():
            scored = Scored(truth[:, columns], truth[:, columns] == 1, counted[:, columns], group)
            half[:, columns] = halves(scored, generator(run.config.run.seed, "concepts.markers", layer))
    found = markers_of_halves(items.counts, np.where(counted, truth, -1), half)
    whole = np.zeros((len(chosen), len(concepts)), np.int8)
    whole[:, numbers] = half
    return Markers(chosen, whole, {(int(numbers[column]), each): units for (column, each), units in found.items()})


def markers_of_halves(
    counts: sparse.spmatrix, truth: npt.NDArray[np.int8], half: npt.NDArray[np.int8]
) -> dict[tuple[int, int], Int64]:
    """Of each concept and half the `MARKERS` units that are higher in items with it, most clearly first.

    d_j = (mean_with - mean_without) / sd of log(1 + 10 000 x count / sum of counts), the means over the half, sd over all items.
    counts: [items, units]. truth: int8 [items, concepts]: 1 with it, 0 without, -1 for nothing. half: int8 [items, concepts].
    """
    values = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    total = np.asarray(values.sum(axis=1)).ravel()
    values.data *= 1e4 / np.repeat(np.maximum(total, 1.0), np.diff(values.indptr))
    values.data = np.log1p(values.data)
    mean = np.asarray(values.mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(np.asarray(values.multiply(values).mean(axis=0)).ravel() - mean**2, 1e-12))
    chosen: dict[tuple[int, int], Int64] = {}
    enough = np.ones(truth.shape[1], bool)
    for each in HALVES:
        inside, outside = (truth == 1) & (half == each), (truth == 0) & (half == each)
        n_inside, n_outside = inside.sum(axis=0), outside.sum(axis=0)
        enough &= np.minimum(n_inside, n_outside) >= LEAST
        higher = (
            values.T @ (inside / np.maximum(n_inside, 1)) - values.T @ (outside / np.maximum(n_outside, 1))
        ) / spread[:, None]
        order = np.argsort(-higher, axis=0, kind="stable")[:MARKERS]
        for column in range(truth.shape[1]):
            units = order[higher[order[:, column], column] > 0, column].astype(np.int64)
            enough[column] &= len(units) > 0
            chosen[column, each] = units
    return {key: units for key, units in chosen.items() if enough[key[0]]}
