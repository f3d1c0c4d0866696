"""Correlations of features of two layers, the best few of each.

Feature by feature: its tokens' active features of the other layer are added up in one row of sums that stays in the cache, then the
touched entries are read and set back to zero. No matrix of all pairs is ever made. Features are cut among threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Active, Moments
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel
from sae_genomics.kernels.plain import cross_products as plain

Int64 = npt.NDArray[np.int64]
_FEATURES = 128


class _Best(NamedTuple):
    """What is written: int32 and float64 [features, n_best]."""

    partner: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]


@instead_of(plain.best_correlations)
def best_correlations(
    first: Active, second: Active, order: Int64, moments: tuple[Moments, Moments], n_best: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    d_first = len(first.ptr) - 1
    found = _Best(np.full((d_first, n_best), -1, dtype=np.int32), np.zeros((d_first, n_best)))
    each_range(d_first, _FEATURES, lambda start, stop: _best_rows(first, second, order, moments, start, stop, found))
    return found.partner, found.value


@exact_kernel
def _best_rows(first, second, order, moments, start, stop, found):  # type: ignore[no-untyped-def]
    n, n_best = len(order), found.partner.shape[1]
    mean, sd = moments[1].mean, moments[1].sd
    sums = np.zeros(len(mean))
    touched = np.empty(len(mean), np.int64)
    ptr, other, activation = second.ptr, second.unit, second.activation
    for i in range(start, stop):
        if not moments[0].sd[i] > 0:
            continue
        n_touched = 0
        for e in range(first.ptr[i], first.ptr[i + 1]):
            t = np.uint64(order[first.unit[e]])
            a = np.float64(first.activation[e])
            for p in range(np.uint64(ptr[t]), np.uint64(ptr[t + np.uint64(1)])):
                j = np.uint64(other[p])
                before = sums[j]
                if before == 0.0:
                    touched[n_touched] = j
                    n_touched += 1
                sums[j] = before + a * np.float64(activation[p])
        for c in range(n_touched):
            j = touched[c]
            r = (sums[j] - n * moments[0].mean[i] * mean[j]) / (n * moments[0].sd[i] * sd[j])
            sums[j] = 0.0
            last = n_best - 1
            worst = found.value[i, last]
            if r > 0 and (r > worst or (r == worst and j < found.partner[i, last])):
                while last > 0 and (
                    r > found.value[i, last - 1] or (r == found.value[i, last - 1] and j < found.partner[i, last - 1])
                ):
                    found.value[i, last], found.partner[i, last] = found.value[i, last - 1], found.partner[i, last - 1]
                    last -= 1
                found.value[i, last], found.partner[i, last] = r, j
