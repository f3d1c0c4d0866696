"""The k largest pre-activations of each token, without sorting a row.

The k-th largest of L lane maxima (lane l holds the elements l, l + L, l + 2L, ...) is never above the k-th largest
element of the row, because k lanes then hold an element at least as large. With L = 4k lanes barely more than k elements
pass that bound (with 2k, in short rows, 1.4 k), so two vectorised passes and a selection among a few dozen candidates
replace a partial sort of d_sae elements.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.compiled import each_range, inner, kernel

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_ROWS = 16
_ALL = np.empty(0, np.int32)


def top_k(
    hidden: Float32,
    weight: Float32,
    k: int,
    indices: Int32,
    values: Float32,
    *,
    among: Int32 | None = None,
    rectify: bool = True,
) -> None:
    """For each row the k columns with the largest hidden x weight, and hidden there.

    hidden: float32 [rows, columns], pre-activations. weight: float32 [columns], positive (decoder norms).
    indices: int32 [rows, k], written; columns ascending. values: float32 [rows, k], written.
    among: int32 [n >= k], ascending, the columns to choose from; default: all. rectify: negative values become zero.
    A row with fewer than k numbers (NaN elsewhere) repeats a column with value NaN. Ties at the k-th place go to the
    lower column.
    """
    if among is None:
        among = _ALL
    lanes = _lanes(len(among) or hidden.shape[1], k)
    each_range(
        hidden.shape[0],
        _ROWS,
        lambda start, stop: _top_k_rows(hidden, weight, among, k, lanes, start, stop, indices, values, rectify),
    )


def _lanes(columns: int, k: int) -> int:
    """Lanes for the bound; 0 where a row is too short for it to save anything."""
    for factor in (4, 2):
        lanes = -(-factor * k // 16) * 16
        if columns >= 3 * lanes:
            return lanes
    return 0


@kernel
def _top_k_rows(hidden, weight, among, k, lanes, start, stop, indices, values, rectify):  # type: ignore[no-untyped-def]
    subset = len(among) > 0
    columns = len(among) if subset else hidden.shape[1]
    candidate = np.empty(columns, np.int32)
    score = np.empty(columns, np.float32)
    scaled = np.empty(columns, np.float32)
    maxima = np.empty(max(lanes, 1), np.float32)
    for row in range(start, stop):
        numbers = hidden[row]
        if subset:
            for i in range(columns):
                scaled[i] = numbers[among[i]] * weight[among[i]]
        else:
            for i in range(columns):
                scaled[i] = numbers[i] * weight[i]
        count = 0
        if lanes > 0:
            for lane in range(lanes):
                maxima[lane] = -np.inf
            for block in range(columns // lanes):
                part = scaled[block * lanes : (block + 1) * lanes]  # a slice, or the loop does not vectorise
                for lane in range(lanes):
                    if part[lane] > maxima[lane]:  # never true of a NaN
                        maxima[lane] = part[lane]
            part = scaled[columns // lanes * lanes :]
            for lane in range(len(part)):
                if part[lane] > maxima[lane]:
                    maxima[lane] = part[lane]
            bound = _kth_largest(maxima, lanes, k)
            for group in range(columns // 16):
                part = scaled[group * 16 : group * 16 + 16]
                above = 0
                for i in range(16):
                    above += part[i] >= bound
                if above > 0:
                    for i in range(16):
                        if part[i] >= bound:
                            candidate[count] = group * 16 + i
                            score[count] = part[i]
                            count += 1
            for i in range(columns // 16 * 16, columns):
                if scaled[i] >= bound:
                    candidate[count] = i
                    score[count] = scaled[i]
                    count += 1
        else:
            for i in range(columns):
                if scaled[i] == scaled[i]:
                    candidate[count] = i
                    score[count] = scaled[i]
                    count += 1
        if subset:
            for i in range(count):
                candidate[i] = among[candidate[i]]
        if count < k:
            for slot in range(k):
                indices[row, slot] = candidate[slot] if slot < count else (among[0] if subset else 0)
                values[row, slot] = numbers[candidate[slot]] if slot < count else np.nan
            continue
        least = _kth_largest(score, count, k)
        ties = k
        for i in range(count):
            if score[i] > least:
                ties -= 1
        slot = 0
        for i in range(count):
            if score[i] > least or (score[i] == least and ties > 0):
                if score[i] == least:
                    ties -= 1
                value = numbers[candidate[i]]
                indices[row, slot] = candidate[i]
                values[row, slot] = max(value, np.float32(0)) if rectify else value
                slot += 1


@inner
def _kth_largest(numbers, count, k):  # type: ignore[no-untyped-def]
    """The k-th largest of the first `count` numbers (Hoare's selection on a copy)."""
    work = numbers[:count].copy()
    low, high, target = 0, count - 1, count - k
    while low < high:
        middle = (low + high) >> 1
        a, b, c = work[low], work[middle], work[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while work[i] < pivot:
                i += 1
            while work[j] > pivot:
                j -= 1
            if i <= j:
                work[i], work[j] = work[j], work[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return work[target]


def above(hidden: Float32, threshold: Float32) -> tuple[npt.NDArray[np.int64], Int32, Float32]:
    """Entries of hidden, float32 [rows, columns], above their column's threshold, float32 [columns].

    Returns row int64 [n], column int32 [n] and value float32 [n]; rows ascending, columns ascending within a row.
    """
    counts = np.zeros(len(hidden) + 1, np.int64)
    each_range(len(hidden), _ROWS, lambda start, stop: _count_above(hidden, threshold, start, stop, counts))
    indptr = np.cumsum(counts)
    columns, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    each_range(
        len(hidden), _ROWS, lambda start, stop: _take_above(hidden, threshold, start, stop, indptr, columns, values)
    )
    return np.repeat(np.arange(len(hidden)), np.diff(indptr)), columns, values


@kernel
def _count_above(hidden, threshold, start, stop, counts):  # type: ignore[no-untyped-def]
    for row in range(start, stop):
        count = 0
        for i in range(hidden.shape[1]):
            count += hidden[row, i] > threshold[i]
        counts[row + 1] = count


@kernel
def _take_above(hidden, threshold, start, stop, indptr, columns, values):  # type: ignore[no-untyped-def]
    total = hidden.shape[1]
    for row in range(start, stop):
        place = indptr[row]
        for group in range(total // 16):
            numbers = hidden[row, group * 16 : group * 16 + 16]
            bounds = threshold[group * 16 : group * 16 + 16]
            found = 0
            for i in range(16):
                found += numbers[i] > bounds[i]
            if found > 0:
                for i in range(16):
                    if numbers[i] > bounds[i]:
                        columns[place] = group * 16 + i
                        values[place] = numbers[i]
                        place += 1
        for i in range(total // 16 * 16, total):
            if hidden[row, i] > threshold[i]:
                columns[place] = i
                values[place] = hidden[row, i]
                place += 1
