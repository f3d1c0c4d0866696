"""What one pass adds up for every unit (feature, neuron, direction), concept, half and threshold.

Thresholds. A unit is active at a residue when its activation is at least t. Its thresholds are 0 (anything above zero) and the
N_LEVELS - 1 highest half octaves 2^(k/2) that its largest activation reaches, so from 0.71 to 1 times its maximum down to 0.18 to 0.25 times.
They follow from the unit's activations alone, never from spans. Half octaves stand on a fixed grid, so one pass is enough: when a unit's
maximum rises, finished counts move down the grid, and nothing is lost.

Counts are exact whole numbers, whatever the size of blocks. Memory: units x concepts x 2 halves x N_LEVELS x 12 bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.spans.segments import Concepts, SpanBlock
from sae_genomics.kernels.arrays import Active, CountedRows, LevelCounts, Observations, ObservedItems, Segments
from sae_genomics.kernels.span_counts import add_levels, add_observations

N_LEVELS = 6
_NOTHING = -(1 << 20)
_HALF_OCTAVE = 0x3504F3  # mantissa bits of the square root of 2

Floats = npt.NDArray[np.float32]


def half_octave(activation: Floats) -> npt.NDArray[np.int32]:
    """The largest k with 2^(k/2) <= a, of normal float32 values above zero: int32 [n]."""
    bits = np.ascontiguousarray(activation, dtype=np.float32).view(np.int32)
    octaves: npt.NDArray[np.int32] = 2 * ((bits >> 23) - 127) + ((bits & 0x7FFFFF) >= _HALF_OCTAVE)
    return octaves


def threshold_of(k: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """2^(k/2) as the float32 values that activations are compared with: float64 [n]."""
    root = np.where(np.asarray(k) % 2, np.float64(np.float32(np.sqrt(2))), 1.0)
    return np.ldexp(root, np.asarray(k) // 2)


class ConceptCounts:
    """Counts of one kind of units.

    levels: columns are 2 x concept + half. residues: active residues inside the concept. runs: stretches of active residues that touch
        it. spans: spans with an active residue. active, all_runs: [units, 4, levels], active residues and their stretches in all
        items that can tell: halves by group, halves by item.
    tests: items of the test where the unit is active; where it is strongest inside the concept; summed shares of residues inside the concept.
    """

    def __init__(self, n_units: int, concepts: Concepts):
        self.n_units, self.concepts, n = n_units, concepts, len(concepts)
        self.top = np.full(n_units, _NOTHING, dtype=np.int32)
        self.levels = LevelCounts.zeros(n_units, 2 * n, N_LEVELS)
        self.tests = Observations.zeros(n_units, n)

    def add(self, block: SpanBlock, values: Active) -> None:
        """Count a block of whole items."""
        if not len(values.unit):
            return
        rows = CountedRows(block.item, block.position, block.half)
        add_levels(self.levels, rows, block.merged, block.spans, values, self._levels(values))
        self._add_tests(block, values)

    def _levels(self, values: Active) -> npt.NDArray[np.int8]:
        """The highest level that each activation reaches; -1 for none. Moves the counts of units whose maximum rises."""
        grid = half_octave(values.activation)
        grid[values.activation <= 0] = _NOTHING
        top = self.top.copy()
        np.maximum.at(top, values.unit, grid)
        rise = np.where(self.top > _NOTHING, top - self.top, 0)
        for step in np.unique(np.minimum(rise, N_LEVELS - 1)):
            if step:
                moved = np.flatnonzero(np.minimum(rise, N_LEVELS - 1) == step)
                for counts in (self.levels.residues, self.levels.spans, self.levels.active):
                    counts[moved] = _shifted(counts[moved], int(step), merge=True)
                for counts in (self.levels.runs, self.levels.all_runs):
                    counts[moved] = _shifted(counts[moved], int(step), merge=False)
        self.top = top
        level = np.maximum(N_LEVELS - 1 - (top[values.unit] - grid), 0)
        return np.where(grid > _NOTHING, level, -1).astype(np.int8)

    def _add_tests(self, block: SpanBlock, values: Active) -> None:
        tested = np.flatnonzero(self.concepts.tested[block.merged_number])
        if not len(tested):
            return
        merged = Segments(*(array[tested] for array in block.merged))
        concept = merged.column // 2
        first = np.ones(len(tested), bool)  # of its item and concept
        first[1:] = (np.diff(concept) != 0) | (np.diff(block.item[merged.start]) != 0)
        pair = np.flatnonzero(first)
        row = merged.start[pair]
        items = ObservedItems(block.item_start[row], block.item_stop[row], concept[pair], np.append(pair, len(tested)))
        add_observations(self.tests, items, merged, values)

    def thresholds(self) -> npt.NDArray[np.float64]:
        """The threshold of each level: float64 [units, levels]; the first is 0, for anything above it."""
        k = self.top[:, None] - np.arange(N_LEVELS - 1, -1, -1)
        thresholds = threshold_of(np.where(self.top[:, None] > _NOTHING, k, 0))
        thresholds[:, 0] = 0.0
        return thresholds


def at_least(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Counts at the highest level -> counts at every level that is reached, along the last axis."""
    cumulative: npt.NDArray[np.int64] = np.cumsum(counts[..., ::-1], axis=-1, dtype=np.int64)[..., ::-1]
    return cumulative


def _shifted(counts: npt.NDArray[np.integer], step: int, merge: bool) -> npt.NDArray[np.integer]:
    """Counts after the top level has risen by `step`. merge: level 0 takes what falls below level 1; else it counts it already."""
    moved = np.zeros_like(counts)
    moved[..., 1 : N_LEVELS - step] = counts[..., 1 + step :]
    moved[..., 0] = counts[..., : 1 + step].sum(axis=-1) if merge else counts[..., 0]
    return moved
