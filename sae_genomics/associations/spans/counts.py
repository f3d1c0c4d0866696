"""What one pass adds up for every unit (feature, neuron, direction), concept, half and threshold.

Thresholds. A unit is active at a residue when its activation is at least t. Its thresholds are 0 (anything above zero) and the
N_LEVELS - 1 highest half octaves 2^(k/2) that its largest activation reaches, so from 0.71 to 1 times its maximum down to 0.18 to 0.25 times.
They follow from the unit's activations alone, never from spans. Half octaves stand on a fixed grid, so one pass is enough: when a unit's
maximum rises, finished counts move down the grid, and nothing is lost.

Counts are exact whole numbers, whatever the size of blocks. Memory: units x concepts x 2 halves x N_LEVELS x 12 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.spans.segments import Concepts, SpanBlock
from sae_genomics.kernels.compiled import exact_kernel

N_LEVELS = 6
_NOTHING = -(1 << 20)
_HALF_OCTAVE = 0x3504F3  # mantissa bits of the square root of 2

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Active:
    """Activations at the rows of a SpanBlock: those of row r are ptr[r] to ptr[r + 1]. Zeros and values below count for nothing.

    ptr: int64 [rows + 1]. unit: int32 [n]. activation: float32 [n].
    """

    ptr: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int32]
    activation: Floats


def half_octave(activation: Floats) -> npt.NDArray[np.int32]:
    """The largest k with 2^(k/2) <= a, of normal float32 values above zero: int32 [n]."""
    bits = np.ascontiguousarray(activation, dtype=np.float32).view(np.int32)
    found: npt.NDArray[np.int32] = 2 * ((bits >> 23) - 127) + ((bits & 0x7FFFFF) >= _HALF_OCTAVE)
    return found


def threshold_of(k: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """2^(k/2) as the float32 values that activations are compared with: float64 [n]."""
    root = np.where(np.asarray(k) % 2, np.float64(np.float32(np.sqrt(2))), 1.0)
    return np.ldexp(root, np.asarray(k) // 2)


class ConceptCounts:
    """Counts of one kind of units; arrays are [units, columns, levels], columns = 2 x concept + half.

    residues: active residues inside the concept. runs: stretches of active residues that touch it. spans: spans with an active residue.
    active, all_runs: [units, 4, levels], active residues and their stretches in all items that can tell: halves by group, halves by item.
    observed, inside: [units, concepts], items of the test where the unit is active; where it is strongest inside the concept.
    share: [units, concepts], summed shares of residues inside the concept, of the observed items.

    While the pass runs, `residues`, `spans` and `active` count each residue at its highest level; `runs` count at every level they reach.
    """

    def __init__(self, n_units: int, concepts: Concepts):
        self.n_units, self.concepts, n = n_units, concepts, len(concepts)
        self.top = np.full(n_units, _NOTHING, dtype=np.int32)
        self.residues = np.zeros((n_units, 2 * n, N_LEVELS), dtype=np.int32)
        self.runs, self.spans = np.zeros_like(self.residues), np.zeros_like(self.residues)
        self.active = np.zeros((n_units, 4, N_LEVELS), dtype=np.int64)
        self.all_runs = np.zeros_like(self.active)
        self.observed = np.zeros((n_units, n), dtype=np.int32)
        self.inside = np.zeros_like(self.observed)
        self.share = np.zeros((n_units, n))

    def add(self, block: SpanBlock, values: Active) -> None:
        """Count a block of whole items."""
        if not len(values.unit):
            return
        level = self._levels(values)
        starts = np.empty((len(level), N_LEVELS), dtype=np.int32)
        recent = np.full((self.n_units, N_LEVELS, 2), -2, dtype=np.int64)
        _add_runs(
            block.item,
            block.position,
            block.half,
            values.ptr,
            values.unit,
            level,
            recent,
            starts,
            self.active,
            self.all_runs,
        )
        merged = block.merged
        _add_segments(
            merged.start,
            merged.stop,
            merged.column,
            block.before,
            values.ptr,
            values.unit,
            level,
            starts,
            self.residues,
            self.runs,
        )
        spans, best = block.spans, np.zeros(self.n_units, dtype=np.int8)
        _add_spans(spans.start, spans.stop, spans.column, values.ptr, values.unit, level, best, self.spans)
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
                for counts in (self.residues, self.spans, self.active):
                    counts[moved] = _shifted(counts[moved], int(step), merge=True)
                for counts in (self.runs, self.all_runs):
                    counts[moved] = _shifted(counts[moved], int(step), merge=False)
        self.top = top
        level = np.maximum(N_LEVELS - 1 - (top[values.unit] - grid), 0)
        return np.where(grid > _NOTHING, level, -1).astype(np.int8)

    def _add_tests(self, block: SpanBlock, values: Active) -> None:
        merged = block.merged
        tested = np.flatnonzero(self.concepts.tested[merged.number])
        if not len(tested):
            return
        concept = merged.column[tested] // 2
        first = np.ones(len(tested), bool)  # of its item and concept
        first[1:] = (np.diff(concept) != 0) | (np.diff(block.item[merged.start[tested]]) != 0)
        ptr = np.append(np.flatnonzero(first), len(tested))
        row = merged.start[tested][ptr[:-1]]
        _add_observations(
            block.item_start[row], block.item_stop[row], concept[ptr[:-1]], ptr, merged.start[tested], merged.stop[tested],
            values.ptr, values.unit, values.activation, np.zeros((self.n_units, 2), dtype=np.float32),
            self.observed, self.inside, self.share,
        )  # fmt: skip

    def thresholds(self) -> npt.NDArray[np.float64]:
        """The threshold of each level: float64 [units, levels]; the first is 0, for anything above it."""
        k = self.top[:, None] - np.arange(N_LEVELS - 1, -1, -1)
        found = threshold_of(np.where(self.top[:, None] > _NOTHING, k, 0))
        found[:, 0] = 0.0
        return found


def at_least(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Counts at the highest level -> counts at every level that is reached, along the last axis."""
    found: npt.NDArray[np.int64] = np.cumsum(counts[..., ::-1], axis=-1, dtype=np.int64)[..., ::-1]
    return found


def _shifted(counts: npt.NDArray[np.integer], step: int, merge: bool) -> npt.NDArray[np.integer]:
    """Counts after the top level has risen by `step`. merge: level 0 takes what falls below level 1; else it counts it already."""
    moved = np.zeros_like(counts)
    moved[..., 1 : N_LEVELS - step] = counts[..., 1 + step :]
    moved[..., 0] = counts[..., : 1 + step].sum(axis=-1) if merge else counts[..., 0]
    return moved


@exact_kernel
def _add_runs(item, position, half, ptr, unit, level, recent, starts, active, all_runs):  # type: ignore[no-untyped-def]
    """recent[u, l]: the last row where the unit reached the level, and where its run began. starts[i, l]: where the run of entry i began."""
    for row in range(len(ptr) - 1):
        follows = row > 0 and item[row] == item[row - 1] and position[row] == position[row - 1] + 1
        by_group, by_item = half[row, 0], 2 + half[row, 1]
        for i in range(ptr[row], ptr[row + 1]):
            u, top = unit[i], level[i]
            if top < 0:
                continue
            active[u, by_group, top] += 1
            active[u, by_item, top] += 1
            for step in range(top + 1):
                if not (follows and recent[u, step, 0] == row - 1):
                    recent[u, step, 1] = row
                    all_runs[u, by_group, step] += 1
                    all_runs[u, by_item, step] += 1
                recent[u, step, 0] = row
                starts[i, step] = recent[u, step, 1]


@exact_kernel
def _add_segments(start, stop, column, before, ptr, unit, level, starts, residues, runs):  # type: ignore[no-untyped-def]
    """A run that touches several segments of one concept and item is counted in the first of them."""
    for segment in range(len(start)):
        c = column[segment]
        for row in range(start[segment], stop[segment]):
            for i in range(ptr[row], ptr[row + 1]):
                u, top = unit[i], level[i]
                if top < 0:
                    continue
                residues[u, c, top] += 1
                for step in range(top + 1):
                    begin = starts[i, step]
                    if begin == row or (row == start[segment] and begin >= before[segment]):
                        runs[u, c, step] += 1


@exact_kernel
def _add_spans(start, stop, column, ptr, unit, level, best, spans):  # type: ignore[no-untyped-def]
    met = np.empty(len(best), np.int64)
    for span in range(len(start)):
        n = 0
        for row in range(start[span], stop[span]):
            for i in range(ptr[row], ptr[row + 1]):
                u = unit[i]
                if level[i] < 0:
                    continue
                if best[u] == 0:
                    met[n] = u
                    n += 1
                best[u] = max(best[u], level[i] + 1)
        for j in range(n):
            spans[met[j], column[span], best[met[j]] - 1] += 1
            best[met[j]] = 0


@exact_kernel
def _add_observations(  # type: ignore[no-untyped-def]
    item_start, item_stop, concept, segment_ptr, start, stop, ptr, unit, activation, most, observed, inside, share
):
    """most[u]: the unit's largest activation outside the concept, and inside it; zero between items."""
    met = np.empty(len(most), np.int64)
    for test in range(len(concept)):
        n, covered, segment = 0, 0, segment_ptr[test]
        for row in range(item_start[test], item_stop[test]):
            while segment < segment_ptr[test + 1] and row >= stop[segment]:
                segment += 1
            within = 1 if segment < segment_ptr[test + 1] and row >= start[segment] else 0
            covered += within
            for i in range(ptr[row], ptr[row + 1]):
                u, a = unit[i], activation[i]
                if a <= 0:
                    continue
                if most[u, 0] == 0 and most[u, 1] == 0:
                    met[n] = u
                    n += 1
                most[u, within] = max(most[u, within], a)
        part = covered / (item_stop[test] - item_start[test])
        for j in range(n):
            u = met[j]
            observed[u, concept[test]] += 1
            inside[u, concept[test]] += most[u, 1] > most[u, 0]
            share[u, concept[test]] += part
            most[u, 0] = 0
            most[u, 1] = 0
