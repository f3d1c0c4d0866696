"""What a block of tokens adds to counts per unit, concept and level: each entry is visited once per segment that holds its row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Active, CountedRows, LevelCounts, Observations, ObservedItems, Segments
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import exact_kernel
from sae_genomics.kernels.plain import span_counts as plain

Levels = npt.NDArray[np.int8]


@instead_of(plain.add_levels)
def add_levels(
    counts: LevelCounts, rows: CountedRows, merged: Segments, spans: Segments, active: Active, level: Levels
) -> None:
    n_units, _, n_levels = counts.active.shape
    starts = np.empty((len(level), n_levels), dtype=np.int32)
    recent = np.full((n_units, n_levels, 2), -2, dtype=np.int64)
    _add_runs(counts, rows, active, level, recent, starts)
    _add_segments(counts, merged, active, level, starts)
    _add_spans(counts, spans, active, level)


@instead_of(plain.add_observations)
def add_observations(found: Observations, items: ObservedItems, merged: Segments, active: Active) -> None:
    _add_observations(found, items, merged, active)


@exact_kernel
def _add_runs(counts, rows, active, level, recent, starts):  # type: ignore[no-untyped-def]
    """recent[u, l]: the last row where the unit reached the level, and where its run began. starts[i, l]: where the run of entry i began."""
    item, position, half = rows.item, rows.position, rows.half
    ptr, unit = active.ptr, active.unit
    n_active, all_runs = counts.active, counts.all_runs
    for row in range(len(ptr) - 1):
        follows = row > 0 and item[row] == item[row - 1] and position[row] == position[row - 1] + 1
        by_group, by_item = half[row, 0], 2 + half[row, 1]
        for i in range(ptr[row], ptr[row + 1]):
            u, top = unit[i], level[i]
            if top < 0:
                continue
            n_active[u, by_group, top] += 1
            n_active[u, by_item, top] += 1
            for step in range(top + 1):
                if not (follows and recent[u, step, 0] == row - 1):
                    recent[u, step, 1] = row
                    all_runs[u, by_group, step] += 1
                    all_runs[u, by_item, step] += 1
                recent[u, step, 0] = row
                starts[i, step] = recent[u, step, 1]


@exact_kernel
def _add_segments(counts, merged, active, level, starts):  # type: ignore[no-untyped-def]
    """A run that touches several segments of one concept and item is counted in the first of them."""
    start, stop, column, before = merged.start, merged.stop, merged.column, merged.before
    ptr, unit = active.ptr, active.unit
    residues, runs = counts.residues, counts.runs
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
def _add_spans(counts, segments, active, level):  # type: ignore[no-untyped-def]
    start, stop, column, ptr, unit = segments.start, segments.stop, segments.column, active.ptr, active.unit
    spans = counts.spans
    best = np.zeros(len(spans), np.int8)  # one more than the highest level within the span; zero between spans
    met = np.empty(len(spans), np.int64)
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
def _add_observations(found, items, merged, active):  # type: ignore[no-untyped-def]
    concept, start, stop = items.concept, merged.start, merged.stop
    ptr, unit, activation = active.ptr, active.unit, active.activation
    most = np.zeros((len(found.observed), 2), np.float32)  # of each unit, outside and inside; zero between items
    met = np.empty(len(most), np.int64)
    for pair in range(len(concept)):
        n, covered, segment, end = 0, 0, items.ptr[pair], items.ptr[pair + 1]
        for row in range(items.start[pair], items.stop[pair]):
            while segment < end and row >= stop[segment]:
                segment += 1
            within = 1 if segment < end and row >= start[segment] else 0
            covered += within
            for i in range(ptr[row], ptr[row + 1]):
                u, a = unit[i], activation[i]
                if a <= 0:
                    continue
                if most[u, 0] == 0 and most[u, 1] == 0:
                    met[n] = u
                    n += 1
                most[u, within] = max(most[u, within], a)
        share = covered / (items.stop[pair] - items.start[pair])
        for j in range(n):
            u = met[j]
            found.observed[u, concept[pair]] += 1
            found.inside[u, concept[pair]] += most[u, 1] > most[u, 0]
            found.share[u, concept[pair]] += share
            most[u, 0] = 0
            most[u, 1] = 0
