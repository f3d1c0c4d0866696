"""Sums of midranks per column and group: each column is sorted by itself, so the cost is that of sorting what is stored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.kernels.arrays import RankSums
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import exact_kernel
from sae_genomics.kernels.plain import rank_sums as plain


@instead_of(plain.rank_sums)
def rank_sums(values: sparse.csc_matrix, group: npt.NDArray[np.integer], n_groups: int) -> RankSums:
    shape = (values.shape[1], n_groups)
    found = RankSums(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape[0]))
    size = np.bincount(group, minlength=n_groups).astype(np.float64)
    _rank_sums(values.indptr, values.indices, values.data, np.asarray(group, np.int64), size, found)
    return found


@exact_kernel
def _rank_sums(indptr, indices, data, group, size, found):  # type: ignore[no-untyped-def]
    ranks, values, squares, ties = found.ranks, found.values, found.squares, found.ties
    n_groups = len(size)
    stored = np.empty(n_groups)
    for column in range(len(indptr) - 1):
        start, stop = indptr[column], indptr[column + 1]
        zeros = np.float64(len(group) - (stop - start))
        stored[:] = 0
        order = np.argsort(data[start:stop])
        i = 0
        while i < len(order):
            j = i + 1
            value = data[start + order[i]]
            while j < len(order) and data[start + order[j]] == value:
                j += 1
            rank = zeros + (i + 1 + j) / 2.0
            t = np.float64(j - i)
            ties[column] += t * t * t - t
            for k in range(i, j):
                g = group[indices[start + order[k]]]
                ranks[column, g] += rank
                values[column, g] += value
                squares[column, g] += np.float64(value) * value
                stored[g] += 1
            i = j
        ties[column] += zeros * zeros * zeros - zeros
        for g in range(n_groups):
            ranks[column, g] += (size[g] - stored[g]) * (zeros + 1) / 2.0
