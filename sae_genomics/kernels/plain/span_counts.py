"""What a block of tokens adds to counts per unit (feature, neuron, direction), concept and level.

An entry is one activation of a unit at a row; `level` is the highest level that it reaches, -1 for none. At level l the unit is active where
its level is at least l. A run is a stretch of following rows of one item where the unit is active.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Active, CountedRows, Ints, LevelCounts, Observations, ObservedItems, Segments

Levels = npt.NDArray[np.int8]


def add_levels(
    counts: LevelCounts, rows: CountedRows, merged: Segments, spans: Segments, active: Active, level: Levels
) -> None:
    """Count residues, runs and spans of a block of whole items.

    merged: segments that do not overlap within an item and concept; a run that touches several of them is counted in the first.
    spans: any segments. level: int8 [n], of the entries.
    """
    starts = _add_runs(counts, rows, active, level)
    entry, segment = _entries(merged, active, level)
    unit, column, row = active.unit[entry], merged.column[segment], _row_of(active)[entry]
    np.add.at(counts.residues, (unit, column, level[entry]), 1)
    for step in range(counts.runs.shape[2]):
        begin = starts[entry, step]
        first = (begin == row) | ((row == merged.start[segment]) & (begin >= merged.before[segment]))
        some = (level[entry] >= step) & first
        np.add.at(counts.runs[..., step], (unit[some], column[some]), 1)

    entry, span = _entries(spans, active, level)
    n_units = len(counts.spans)
    pair, which = np.unique(span * n_units + active.unit[entry], return_inverse=True)
    best = np.zeros(len(pair), dtype=np.int8)
    np.maximum.at(best, which, level[entry])
    np.add.at(counts.spans, (pair % n_units, spans.column[pair // n_units], best), 1)


def _add_runs(counts: LevelCounts, rows: CountedRows, active: Active, level: Levels) -> Ints:
    """Count active residues and their runs. Returns the row where each entry's run begins at each level: int64 [n, levels]."""
    n_levels = counts.active.shape[2]
    row_of, row = _row_of(active), np.arange(len(rows.item))
    follows = np.zeros(len(row), dtype=bool)
    follows[1:] = (np.diff(rows.item) == 0) & (np.diff(rows.position) == 1)
    starts = np.full((len(level), n_levels), -1, dtype=np.int64)
    by_unit = np.lexsort((row_of, active.unit))
    for step in range(n_levels):
        entry = by_unit[level[by_unit] >= step]
        unit, at = active.unit[entry], row_of[entry]
        begins = np.ones(len(entry), dtype=bool)
        begins[1:] = (np.diff(unit) != 0) | (np.diff(at) != 1) | ~follows[at[1:]]
        starts[entry, step] = at[begins][np.cumsum(begins) - 1]
        highest = level[entry] == step
        for way in range(2):  # halves by group, halves by item
            column = 2 * way + rows.half[at, way]
            np.add.at(counts.all_runs[..., step], (unit[begins], column[begins]), 1)
            np.add.at(counts.active[..., step], (unit[highest], column[highest]), 1)
    return starts


def add_observations(found: Observations, items: ObservedItems, merged: Segments, active: Active) -> None:
    """Count items where a unit is active, and those where it is strongest inside the concept. A tie is not inside.

    merged: the segments that items.ptr counts.
    """
    row_of, n_units = _row_of(active), len(found.observed)
    whole = Segments(items.start, items.stop, items.concept, items.concept)
    entry, pair = _entries(whole, active, np.where(active.activation > 0, 0, -1))
    segment_pair = np.repeat(np.arange(len(items.concept)), np.diff(items.ptr))
    n_rows = len(active.ptr) - 1
    covered = segment_pair * n_rows + merged.start, segment_pair * n_rows + merged.stop
    at = pair * n_rows + row_of[entry]
    within = np.searchsorted(covered[0], at, side="right") > np.searchsorted(covered[1], at, side="right")

    observed, which = np.unique(pair * n_units + active.unit[entry], return_inverse=True)
    most = np.zeros((2, len(observed)), dtype=np.float32)
    np.maximum.at(most, (within.astype(np.int64), which), active.activation[entry])
    of_pair, unit = np.divmod(observed, n_units)
    where = unit, items.concept[of_pair]
    share = np.bincount(segment_pair, merged.stop - merged.start, len(items.concept)) / (items.stop - items.start)
    np.add.at(found.observed, where, 1)
    np.add.at(found.inside, where, most[1] > most[0])
    np.add.at(found.share, where, share[of_pair])


def _row_of(active: Active) -> Ints:
    return np.repeat(np.arange(len(active.ptr) - 1), np.diff(active.ptr))


def _entries(segments: Segments, active: Active, level: npt.NDArray[np.integer]) -> tuple[Ints, Ints]:
    """The entries that reach a level in each segment, and which segment: int64 [n] each."""
    start, stop = active.ptr[segments.start], active.ptr[segments.stop]
    segment = np.repeat(np.arange(len(start)), stop - start)
    before = np.cumsum(stop - start) - (stop - start)
    entry = np.arange(len(segment)) + np.repeat(start - before, stop - start)
    reached = level[entry] >= 0
    return entry[reached], segment[reached]
