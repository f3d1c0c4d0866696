"""How alike features of two layers are: Pearson correlation of their activations on the same tokens, and what chance gives.

    r_ij = (sum over tokens of x_i y_j - n mean_i mean_j) / (n sd_i sd_j)

Exact over the sampled tokens, zeros included, from the active entries alone: `kernels.cross_products`. The null keeps every feature's
activations and every unit, and breaks what tokens have in common beside it: the rows of the second layer are permuted among the tokens of
one unit. A feature that says nothing but its unit correlates as well after that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse, stats

from sae_genomics.cross_layer.activations import SparseRows
from sae_genomics.kernels.arrays import Active, Moments
from sae_genomics.kernels.cross_products import best_correlations, largest_correlations

FEWEST = 8  # tokens of a unit, below which its tokens are permuted together with those of other rare units
_ROUNDING = 1e-9  # of sums in another order: a feature that is constant within its unit has the same r in every draw
CERTAIN = 0.99  # share of further draws that stay below the bound of the null
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """A layer's features on n tokens. by_token: rows are tokens. by_feature: rows are features, `unit` is the token. live: bool, those
    that vary."""

    by_token: Active
    by_feature: Active
    moments: Moments

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        return self.moments.sd > 0

    @property
    def d_sae(self) -> int:
        return len(self.moments.mean)

    @staticmethod
    def of(rows: SparseRows, d_sae: int) -> Features:
        """From the activations of one layer."""
        n = len(rows.indptr) - 1
        by_feature = sparse.csr_matrix((rows.value, rows.feature, rows.indptr), shape=(n, d_sae)).tocsc()
        value = by_feature.data.astype(np.float64)
        feature = np.repeat(np.arange(d_sae), np.diff(by_feature.indptr))
        mean = np.bincount(feature, value, d_sae) / max(n, 1)
        # about the mean, so that a feature that is never silent loses no digits
        squares = np.bincount(feature, (value - mean[feature]) ** 2, d_sae).astype(np.float64)
        squares += (n - np.diff(by_feature.indptr)) * mean**2
        sd = np.sqrt(squares / max(n, 1))
        sd[sd <= 1e-7 * mean] = 0.0  # the same on every token
        return Features(
            Active(rows.indptr, rows.feature, rows.value),
            Active(
                by_feature.indptr.astype(np.int64), by_feature.indices.astype(np.int32), by_feature.data.astype(np.float32)
            ),
            Moments(mean, sd),
        )  # fmt: skip


@dataclass(frozen=True)
class Candidates:
    """Pairs of features that one of both holds among its best. first, second: int32 [n], ascending by both. correlation: float64 [n]."""

    first: Int32
    second: Int32
    correlation: Float64

    def __len__(self) -> int:
        return len(self.first)

    def take(self, some: npt.NDArray[np.bool_] | Int64) -> Candidates:
        return Candidates(self.first[some], self.second[some], self.correlation[some])


def candidates(first: Features, second: Features, n_best: int) -> Candidates:
    """The n_best partners of every feature of both layers, of those with r > 0, each pair once."""
    order = np.arange(len(first.by_token.ptr) - 1)
    partner, r = best_correlations(first.by_feature, second.by_token, order, (first.moments, second.moments), n_best)
    back, r_back = best_correlations(second.by_feature, first.by_token, order, (second.moments, first.moments), n_best)
    i, rank = np.nonzero(partner >= 0)
    j, rank_back = np.nonzero(back >= 0)
    one = np.concatenate([i, back[j, rank_back].astype(np.int64)])
    other = np.concatenate([partner[i, rank].astype(np.int64), j])
    value = np.concatenate([r[i, rank], r_back[j, rank_back]])
    key, at = np.unique(one * second.d_sae + other, return_index=True)
    one, other = np.divmod(key, second.d_sae)
    return Candidates(one.astype(np.int32), other.astype(np.int32), value[at])


def largest(first: Features, second: Features, order: Int64) -> tuple[Float64, Float64]:
    """Each feature's largest correlation with any of the other layer, 0 where none is above: float64 [features] of both.

    order: int64 [T], row of the second layer that stands beside each token of the first.
    """
    return largest_correlations(first.by_feature, second.by_token, order, (first.moments, second.moments))


def permuted_within(unit: npt.NDArray[np.integer], rng: np.random.Generator, fewest: int = FEWEST) -> Int64:
    """An order of the tokens in which each stands where one of its unit stood: int64 [T].

    Units with less than `fewest` tokens are taken together, because permuting one or two tokens changes next to nothing.
    """
    group = np.where(np.bincount(unit)[unit] >= fewest, unit, -1) if len(unit) else unit
    order = np.empty(len(unit), dtype=np.int64)
    order[np.argsort(group, kind="stable")] = np.lexsort((rng.random(len(unit)), group))
    return order


def chance_bound(null: Float64) -> Float64:
    """What a further draw of the null would exceed with a probability of one in a hundred, and no less than the largest draw: float64 [features].

    null: float64 [draws, features], each feature's largest correlation in each draw. The one-sided prediction bound of a normal sample,

        mean + t(0.99, draws - 1) sd sqrt(1 + 1 / draws)

    because the largest of n draws alone is exceeded by chance once in n + 1 times.
    """
    draws = len(null)
    spread = null.std(axis=0, ddof=1) * np.sqrt(1 + 1 / draws)
    bound: Float64 = np.maximum(null.mean(axis=0) + stats.t.ppf(CERTAIN, draws - 1) * spread, null.max(axis=0))
    return bound + _ROUNDING


def same_layer_correlations(features: Features, first: Int32, second: Int32) -> Float64:
    """Correlation of given pairs of one layer's features: float64 [n]."""
    ptr, token, value = features.by_feature
    matrix = sparse.csr_matrix((value.astype(np.float64), token, ptr), shape=(features.d_sae, _n_tokens(features)))
    sums = np.asarray(matrix[first].multiply(matrix[second]).sum(axis=1)).ravel()
    mean, sd, n = features.moments.mean, features.moments.sd, _n_tokens(features)
    spread = n * sd[first] * sd[second]
    return np.divide(sums - n * mean[first] * mean[second], spread, out=np.zeros(len(sums)), where=spread > 0)


def _n_tokens(features: Features) -> int:
    return len(features.by_token.ptr) - 1
