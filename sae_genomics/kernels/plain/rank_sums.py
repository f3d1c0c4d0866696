"""Sums of midranks per column and group, for Mann-Whitney tests on sparse columns.

A run of t equal values at ranks i + 1 to i + t has the midrank i + (t + 1) / 2. Implicit zeros are one run below every stored value.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.kernels.arrays import RankSums


def rank_sums(values: sparse.csc_matrix, group: npt.NDArray[np.integer], n_groups: int) -> RankSums:
    """values: [rows, columns], as `mann_whitney.group_tests` takes them. group: int [rows], 0 to n_groups - 1."""
    n, n_columns = values.shape
    stored = np.diff(values.indptr)
    column = np.repeat(np.arange(n_columns), stored)
    order = np.lexsort((values.data, column))
    value, member = values.data[order], group[values.indices[order]]
    zeros = (n - stored).astype(np.float64)

    starts = np.flatnonzero(np.append(True, (np.diff(column) != 0) | (np.diff(value) != 0))[: len(value)])
    length = np.diff(np.append(starts, len(value)))
    below = zeros[column[starts]] + starts - values.indptr[column[starts]]
    rank = np.repeat(below + (length + 1) / 2, length)

    def per_group(weights: npt.NDArray[np.floating] | None) -> npt.NDArray[np.float64]:
        cell = column * n_groups + member
        return (
            np.bincount(cell, weights, minlength=n_columns * n_groups).reshape(n_columns, n_groups).astype(np.float64)
        )

    implicit = np.bincount(group, minlength=n_groups) - per_group(None)
    exact = value.astype(np.float64)
    return RankSums(
        per_group(rank) + implicit * (zeros[:, None] + 1) / 2,
        per_group(exact),
        per_group(exact * exact),
        np.bincount(column[starts], length.astype(np.float64) ** 3 - length, minlength=n_columns) + zeros**3 - zeros,
    )
