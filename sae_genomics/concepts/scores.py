"""AUROC and average precision, also for many draws of groups and within strata, and intervals over groups.

With weights w (how often a bootstrap drew the row's group), the AUROC is the sum of w_i w_j over pairs of a positive i and a negative j with
s_i > s_j, ties counting one half, over the sum of w_i w_j. Within strata only pairs of one stratum count.
Average precision is the sum over thresholds of (recall gained) x precision; rows of one score share a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from sae_genomics.associations.intervals import auroc_interval
from sae_genomics.concepts.concept import Bools, Ints

Floats = npt.NDArray[np.float64]
FEW_GROUPS = 20  # below, the interval is at least as wide as Newcombe's for as many independent values


def aurocs(scores: npt.NDArray[np.floating[Any]], positive: Bools) -> Floats:
    """Of every column; NaN without positives or negatives, and where a score is NaN: float64 [columns]. scores, positive: [rows, columns]."""
    if not len(scores):
        return np.full(scores.shape[1], np.nan)
    n_in = positive.sum(axis=0)
    n_out = len(scores) - n_in
    wins = np.zeros(scores.shape[1])
    for number, (column, inside) in enumerate(zip(scores.T, positive.T, strict=True)):
        above, below = column[inside], np.sort(column[~inside])  # one sort of the negatives alone: no ranks of all rows
        wins[number] = (np.searchsorted(below, above) + np.searchsorted(below, above, "right")).sum() / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        area: Floats = wins / (n_in * n_out)
    return np.where((n_in > 0) & (n_out > 0) & ~np.isnan(scores).any(axis=0), area, np.nan)


def auroc(scores: npt.NDArray[np.floating[Any]], positive: Bools) -> float:
    """Of one column."""
    return float(aurocs(scores[:, None], positive[:, None])[0])


def weighted_aurocs(
    scores: npt.NDArray[np.floating[Any]], positive: Bools, weights: Floats, stratum: Ints | None = None
) -> Floats:
    """Of one score under many weightings; NaN where no pair has weight: float64 [draws]. weights: [rows, draws]."""
    if not len(scores):
        return np.full(weights.shape[1], np.nan)
    strata = np.zeros(len(scores), np.int64) if stratum is None else stratum
    order = np.lexsort((scores, strata))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(scores[order]) != 0) | (np.diff(strata[order]) != 0)
    rank, told = np.cumsum(is_new), positive[order]  # rows of one score in one stratum share a rank
    inside, outside = order[told], order[~told]
    total = np.zeros((len(outside) + 1, weights.shape[1]))
    np.cumsum(weights[outside], axis=0, out=total[1:])  # weight of the negatives up to each
    low, high = (np.searchsorted(rank[~told], rank[told], side) for side in ("left", "right"))
    first, stop = (np.searchsorted(strata[outside], strata[inside], side) for side in ("left", "right"))
    drawn = weights[inside]
    below = (total[low] + total[high]) / 2
    edges = np.flatnonzero(np.diff(strata[inside], prepend=-1)) if len(inside) else np.zeros(0, np.int64)
    of_stratum = np.add.reduceat(drawn, edges, axis=0) if len(edges) else np.zeros((0, weights.shape[1]))
    wins = np.einsum("ij,ij->j", drawn, below) - (of_stratum * total[first[edges]]).sum(axis=0)
    pairs = (of_stratum * (total[stop[edges]] - total[first[edges]])).sum(axis=0)
    return np.where(pairs > 0, wins / np.where(pairs > 0, pairs, 1), np.nan)


def average_precisions(scores: npt.NDArray[np.floating[Any]], positive: Bools, weights: Floats) -> Floats:
    """Of one score under many weightings; NaN without positives: float64 [draws]."""
    if not len(scores):
        return np.full(weights.shape[1], np.nan)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.concatenate([np.diff(scores[order]) != 0, [True]]))
    hits = np.cumsum(weights[order] * positive[order, None], axis=0)[ends]
    drawn = np.cumsum(weights[order], axis=0)[ends]
    gained = np.diff(hits, axis=0, prepend=0)
    total = hits[-1]
    precision = hits / np.maximum(drawn, 1e-300)
    return np.where(total > 0, (gained * precision).sum(axis=0) / np.where(total > 0, total, 1), np.nan)


@dataclass(frozen=True, eq=False)
class GroupDraws:
    """Bootstrap draws of whole groups with replacement. weights: float64 [rows, draws]. n_groups: distinct ones."""

    weights: Floats
    n_groups: int

    @staticmethod
    def of(group: Ints, n_draws: int, seed: int) -> GroupDraws:
        """group: [rows]."""
        codes = np.unique(group, return_inverse=True)[1]
        n = int(codes.max(initial=-1)) + 1
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=n_draws).T if n else np.zeros((0, n_draws))
        return GroupDraws(drawn.astype(np.float64)[codes], n)


def bounds(values: Floats, estimate: float = np.nan, n_groups: int = 0) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the draws that have a value; NaN where none has.

    estimate, n_groups: where given, each end is moved away from the estimate by the factor sqrt(n / (n - 1)) t / 1.96, with t the 97.5th
    percentile of Student's distribution with n - 1 degrees of freedom: percentiles of few groups lie too close together
    (Hesterberg, The American Statistician 2015, 69:371).
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.percentile(known, [2.5, 97.5])
    if n_groups > 1 and np.isfinite(estimate):
        factor = np.sqrt(n_groups / (n_groups - 1)) * t.ppf(0.975, n_groups - 1) / t.ppf(0.975, np.inf)
        low, high = estimate - factor * (estimate - low), estimate + factor * (high - estimate)
    return float(low), float(high)


def least_groups(positive: Bools, group: Ints) -> int:
    """Distinct groups on that side, with the concept or without, that has fewer."""
    return min(len(np.unique(group[positive])), len(np.unique(group[~positive])))


def auroc_bounds(area: float, draws: Floats, positive: Bools, group: Ints) -> tuple[float, float]:
    """`bounds`. Where few groups stand behind either side, at least as wide as Newcombe's interval of their number."""
    low, high = bounds(draws, area, least_groups(positive, group))
    n_in, n_out = len(np.unique(group[positive])), len(np.unique(group[~positive]))
    if min(n_in, n_out) < FEW_GROUPS and np.isfinite(area):
        at_least, at_most = (float(end) for end in auroc_interval(area, n_in, n_out))
        low, high = float(np.fmin(low, at_least)), float(np.fmax(high, at_most))
    return max(low, 0.0), min(high, 1.0)
