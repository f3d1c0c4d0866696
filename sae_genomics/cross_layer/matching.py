"""Which feature of one layer is which feature of another: matches above chance, mutual best partners, one-to-one assignment.

A pair (i, j) is linked when r_ij is at least `min_correlation` and above what the largest correlation of i, and of j, with any feature of
the other layer comes to when tokens are permuted within their unit (`correlations.chance_bound`). Of linked pairs:

    mutual      j is i's best partner and i is j's
    assigned    in the one-to-one assignment with the largest sum of r (Jonker and Volgenant's shortest augmenting paths, sparse)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from sae_genomics.cross_layer.activations import SparseRows
from sae_genomics.cross_layer.correlations import Candidates, Features, candidates, chance_bound, largest

_PAIRS_AT_ONCE = 8_192
Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Null:
    """Each feature's largest correlation in each draw: float64 [draws, features] of both layers."""

    first: Float64
    second: Float64

    @property
    def bounds(self) -> tuple[Float64, Float64]:
        """What is above chance: float64 [features] of both."""
        return chance_bound(self.first), chance_bound(self.second)


@dataclass(frozen=True)
class Matches:
    """Pairs of features of two layers. null: the larger of both features' bounds, linked, mutual, assigned: arrays [pairs]."""

    pairs: Candidates
    null: Float64
    linked: Bool
    mutual: Bool
    assigned: Bool


def null_of(first: Features, second: Features, orders: list[Int64]) -> Null:
    """Correlations with the second layer's rows in the orders of `correlations.permuted_within`."""
    found = [largest(first, second, order) for order in orders]
    return Null(np.stack([one for one, _ in found]), np.stack([other for _, other in found]))


def match_layers(first: Features, second: Features, null: Null, n_best: int, min_correlation: float) -> Matches:
    """The n_best partners of each feature, and what they are to one another."""
    pairs = candidates(first, second, n_best)
    of_first, of_second = null.bounds
    chance = np.maximum(of_first[pairs.first], of_second[pairs.second])
    linked = (pairs.correlation > chance) & (pairs.correlation >= min_correlation)
    rows = np.flatnonzero(linked)
    some = pairs.take(rows)
    mutual, assigned = np.zeros(len(pairs), dtype=bool), np.zeros(len(pairs), dtype=bool)
    mutual[rows] = mutual_best(some, first.d_sae, second.d_sae)
    assigned[rows] = one_to_one(some, first.d_sae, second.d_sae)
    return Matches(pairs, chance, linked, mutual, assigned)


def best_pair(feature: npt.NDArray[np.integer], value: Float64, n_features: int) -> Int64:
    """The row of each feature's largest value, -1 without a row; of equal ones the first: int64 [n_features]."""
    order = np.lexsort((np.arange(len(feature)), -value, feature))
    best = np.full(n_features, -1, dtype=np.int64)
    first = np.ones(len(order), dtype=bool)
    first[1:] = feature[order][1:] != feature[order][:-1]
    best[feature[order[first]]] = order[first]
    return best


def mutual_best(pairs: Candidates, n_first: int, n_second: int) -> Bool:
    """Whether each of a pair is the other's best: bool [pairs]."""
    row = np.arange(len(pairs))
    of_first = best_pair(pairs.first, pairs.correlation, n_first)[pairs.first] == row
    of_second = best_pair(pairs.second, pairs.correlation, n_second)[pairs.second] == row
    mutual: Bool = of_first & of_second
    return mutual


def one_to_one(pairs: Candidates, n_first: int, n_second: int) -> Bool:
    """The pairs of the assignment with the largest sum of correlations, no feature twice: bool [pairs].

    Every feature of the first layer may stay alone: it has a partner of its own that counts for 0. pairs: r in (0, 1].
    """
    chosen = np.zeros(len(pairs), dtype=bool)
    if not len(pairs):
        return chosen
    rows, first = np.unique(pairs.first, return_inverse=True)
    columns, second = np.unique(pairs.second, return_inverse=True)
    alone = np.arange(len(rows))
    cost = sparse.csr_matrix(
        (
            np.concatenate([2.0 - pairs.correlation, np.full(len(rows), 2.0)]),  # no stored zero: it would be no edge
            (np.concatenate([first, alone]), np.concatenate([second, len(columns) + alone])),
        ),
        shape=(len(rows), len(columns) + len(rows)),
    )
    row, column = min_weight_full_bipartite_matching(cost)
    partner = np.empty(len(rows), dtype=np.int64)
    partner[row] = column
    chosen[:] = partner[first] == second
    return chosen


def decoder_cosine(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], pairs: Candidates
) -> npt.NDArray[np.float64]:
    """Cosine of the pairs' decoder rows: float64 [pairs]. first, second: W_dec [d_sae, d_in]; NaN for a row of zeros.

    It means something only where both layers write to one space: the residual stream.
    """
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        x, y = first[pairs.first[part]].astype(np.float64), second[pairs.second[part]].astype(np.float64)
        norms = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
        found[part] = np.divide((x * y).sum(axis=1), norms, out=np.full(len(x), np.nan), where=norms > 0)
    return found


def top_units(rows: SparseRows, unit: npt.NDArray[np.int32], d_sae: int, n_units: int, n_top: int) -> sparse.csr_matrix:
    """The n_top units with the largest sum of activation of each feature, as ones: int32 csr [features, units]."""
    of_unit = sparse.csr_matrix(
        (np.ones(len(unit), np.float32), (np.arange(len(unit)), unit)), shape=(len(unit), n_units)
    )
    active = sparse.csr_matrix((rows.value, rows.feature, rows.indptr), shape=(len(unit), d_sae))
    sums = (active.T @ of_unit).tocoo()
    order = np.lexsort((sums.col, -sums.data, sums.row))
    feature, column = sums.row[order], sums.col[order]
    top = np.arange(len(feature)) - np.searchsorted(feature, feature) < n_top
    return sparse.csr_matrix((np.ones(int(top.sum()), np.int32), (feature[top], column[top])), shape=(d_sae, n_units))


def jaccard(first: sparse.csr_matrix, second: sparse.csr_matrix, pairs: Candidates) -> npt.NDArray[np.float64]:
    """Units that a pair shares, of those that either has: float64 [pairs]; NaN where neither has any."""
    shared = np.empty(len(pairs))
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        both = first[pairs.first[part]].multiply(second[pairs.second[part]])
        shared[part] = np.asarray(both.sum(axis=1)).ravel()
    either = np.diff(first.indptr)[pairs.first] + np.diff(second.indptr)[pairs.second] - shared
    return np.divide(shared, either, out=np.full(len(pairs), np.nan), where=either > 0)
