"""The k largest pre-activations of each token, without sorting a row.

Deal a row's elements into L stripes: stripe l holds the elements l, l + L, l + 2L, ... The k-th largest of the stripes' maxima
is never above the k-th largest element of the row, because k stripes then hold an element at least as large. With L = 4k
barely more than k elements pass that bound (with 2k, in short rows, 1.4 k), so two vectorised passes and a selection among a
few dozen candidates replace a partial sort of d_sae elements.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, inner, kernel, rows_at_once
from sae_genomics.kernels.plain import select as plain

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_ALL = np.empty(0, np.int32)


@instead_of(plain.top_k)
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
    """For each row the k columns with the largest hidden x weight, and hidden there; arguments: the plain version."""
    if among is None:
        among = _ALL
    stripes = _stripes(len(among) or hidden.shape[1], k)
    each_range(
        hidden.shape[0],
        rows_at_once(hidden.shape[1]),
        lambda start, stop: _top_k_rows(hidden, weight, among, k, stripes, start, stop, indices, values, rectify),
    )


def _stripes(columns: int, k: int) -> int:
    """Stripes for the bound; 0 where a row is too short for it to save anything."""
    for factor in (4, 2):
        stripes = -(-factor * k // 16) * 16
        if columns >= 3 * stripes:
            return stripes
    return 0


@kernel
def _top_k_rows(hidden, weight, among, k, stripes, start, stop, indices, values, rectify):  # type: ignore[no-untyped-def]
    subset = len(among) > 0
    columns = len(among) if subset else hidden.shape[1]
    candidate = np.empty(columns, np.int32)
    score = np.empty(columns, np.float32)
    scaled = np.empty(columns, np.float32)
    maxima = np.empty(max(stripes, 1), np.float32)
    for row in range(start, stop):
        numbers = hidden[row]
        if subset:
            for i in range(columns):
                scaled[i] = numbers[among[i]] * weight[among[i]]
        else:
            for i in range(columns):
                scaled[i] = numbers[i] * weight[i]
        count = 0
        if stripes > 0:
            for stripe in range(stripes):
                maxima[stripe] = -np.inf
            for block in range(columns // stripes):
                part = scaled[block * stripes : (block + 1) * stripes]  # a slice, or the loop does not vectorise
                for stripe in range(stripes):
                    if part[stripe] > maxima[stripe]:  # never true of a NaN
                        maxima[stripe] = part[stripe]
            part = scaled[columns // stripes * stripes :]
            for stripe in range(len(part)):
                if part[stripe] > maxima[stripe]:
                    maxima[stripe] = part[stripe]
            bound = _kth_largest(maxima, stripes, k)
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
            for rank in range(k):
                indices[row, rank] = candidate[rank] if rank < count else (among[0] if subset else 0)
                value = numbers[candidate[rank]] if rank < count else np.float32(np.nan)
                values[row, rank] = np.float32(0) if rectify and value < 0 else value
            continue
        least = _kth_largest(score, count, k)
        ties = k
        for i in range(count):
            if score[i] > least:
                ties -= 1
        rank = 0
        for i in range(count):
            if score[i] > least or (score[i] == least and ties > 0):
                if score[i] == least:
                    ties -= 1
                value = numbers[candidate[i]]
                indices[row, rank] = candidate[i]
                values[row, rank] = max(value, np.float32(0)) if rectify else value
                rank += 1


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


@instead_of(plain.above)
def above(hidden: Float32, threshold: Float32) -> tuple[npt.NDArray[np.int64], Int32, Float32]:
    """Row, column and value of the entries above their column's threshold; shapes stand in the plain version."""
    counts = np.zeros(len(hidden) + 1, np.int64)
    rows = rows_at_once(hidden.shape[1])
    each_range(len(hidden), rows, lambda start, stop: _count_above(hidden, threshold, start, stop, counts))
    indptr = np.cumsum(counts)
    columns, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    each_range(
        len(hidden), rows, lambda start, stop: _take_above(hidden, threshold, start, stop, indptr, columns, values)
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
        position = indptr[row]
        for group in range(total // 16):
            numbers = hidden[row, group * 16 : group * 16 + 16]
            bounds = threshold[group * 16 : group * 16 + 16]
            found = 0
            for i in range(16):
                found += numbers[i] > bounds[i]
            if found > 0:
                for i in range(16):
                    if numbers[i] > bounds[i]:
                        columns[position] = group * 16 + i
                        values[position] = numbers[i]
                        position += 1
        for i in range(total // 16 * 16, total):
            if hidden[row, i] > threshold[i]:
                columns[position] = i
                values[position] = hidden[row, i]
                position += 1
