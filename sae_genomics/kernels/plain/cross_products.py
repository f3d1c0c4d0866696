"""Pearson correlations of features of two layers over the same tokens, the best few of each feature.

With x the activations of feature i of the first layer, y those of feature j of the second, over all n tokens:

    S_ij = sum over tokens of x y                       from the tokens where both are above zero
    r_ij = (S_ij - n mean_i mean_j) / (n sd_i sd_j)     sd of the population

Activations are never below zero, so that S_ij = 0 gives r_ij <= 0: pairs that are never active together need not be looked at.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.kernels.arrays import Active, Moments

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def best_correlations(
    first: Active, second: Active, order: Int64, moments: tuple[Moments, Moments], n_best: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """The n_best features of the second layer that correlate most with each of the first layer, of those with r > 0.

    first: by feature, `unit` is the token. second: by token. order: int64 [T], row of `second` that stands beside each token.
    moments: of the features of both.

    Returns feature int32 [features, n_best], -1 where there is none, and r float64, 0 there. r descends, ties by feature.
    """
    i, j, r = _correlations(first, second, order, moments)
    keep = np.flatnonzero(r > 0)
    keep = keep[np.lexsort((j[keep], -r[keep], i[keep]))]
    i, j, r = i[keep], j[keep], r[keep]
    rank = np.arange(len(i)) - np.searchsorted(i, i)
    few = rank < n_best
    partner = np.full((len(moments[0].mean), n_best), -1, dtype=np.int32)
    value = np.zeros(partner.shape)
    partner[i[few], rank[few]], value[i[few], rank[few]] = j[few], r[few]
    return partner, value


def largest_correlations(
    first: Active, second: Active, order: Int64, moments: tuple[Moments, Moments]
) -> tuple[Float64, Float64]:
    """Each feature's largest correlation with any of the other layer, 0 where none is above: float64 [features] of both layers."""
    i, j, r = _correlations(first, second, order, moments)
    of_first, of_second = (np.zeros(len(each.mean)) for each in moments)
    np.maximum.at(of_first, i, r)
    np.maximum.at(of_second, j, r)
    return of_first, of_second


def _correlations(
    first: Active, second: Active, order: Int64, moments: tuple[Moments, Moments]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Float64]:
    """Of all pairs that are ever active together: feature of the first layer, of the second, and r; features that never vary have none."""
    n, (one, other) = len(order), moments
    x = sparse.csr_matrix((first.activation.astype(np.float64), first.unit, first.ptr), shape=(len(one.mean), n))
    y = sparse.csr_matrix(
        (second.activation.astype(np.float64), second.unit, second.ptr), shape=(len(second.ptr) - 1, len(other.mean))
    )
    sums = (x @ y[order]).tocoo()
    varies = (one.sd[sums.row] > 0) & (other.sd[sums.col] > 0)
    i, j = sums.row[varies], sums.col[varies]
    r = (sums.data[varies] - n * one.mean[i] * other.mean[j]) / (n * one.sd[i] * other.sd[j])
    return i, j, r
