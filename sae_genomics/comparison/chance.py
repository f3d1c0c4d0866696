"""How many terms two models share when each finds as many terms of the same size by chance.

Terms are cut into strata of one collection and similar size. In a stratum of T terms, one model finds a and the other b. If the two
have nothing to do with each other, the number that both find is hypergeometric:

    P(X = x) = C(a, x) C(T - a, b - x) / C(T, b)

The number over all strata is a sum of independent ones. Its distribution is their convolution. All terms are positive, so p is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

PARTS = 10
LEAST_IN_PART = 20


@dataclass(frozen=True)
class Shared:
    """What two models have in common, beside chance."""

    n_tested: int
    """units (terms or families) that both models were tested with"""
    n_first: int
    """found by the first model"""
    n_second: int
    """found by the second model"""
    n_shared: int
    """found by both"""
    expected: float
    """mean number that both find by chance"""
    low: int
    """2.5 % quantile of the number by chance"""
    high: int
    """97.5 % quantile"""
    p_value: float
    """P(as many or more by chance)"""


def shared(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], strata: npt.NDArray[np.int64]) -> Shared:
    """Compare what two models find. first, second: bool [units], found or not. strata: int64 [units], from 0."""
    n_strata = int(strata.max(initial=-1)) + 1
    totals, of_first, of_second = (
        np.bincount(strata[which], minlength=n_strata) for which in (np.ones_like(first), first, second)
    )
    chance = distribution(totals, of_first, of_second)
    k = int((first & second).sum())
    below = np.cumsum(chance)
    return Shared(
        n_tested=len(first), n_first=int(first.sum()), n_second=int(second.sum()), n_shared=k,
        expected=float((of_first * of_second / np.maximum(totals, 1)).sum()),
        low=int(np.searchsorted(below, 0.025)), high=int(np.searchsorted(below, 0.975)),
        p_value=min(float(chance[k:].sum()), 1.0),
    )  # fmt: skip


def distribution(
    totals: npt.NDArray[np.int64], of_first: npt.NDArray[np.int64], of_second: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """P(x found by both) for x = 0, 1, ...; float64 [at most the smaller number found, and 1]. All arguments are [strata]."""
    chance = np.ones(1)
    for total, a, b in zip(totals, of_first, of_second, strict=True):
        if a and b:
            chance = np.convolve(chance, stats.hypergeom.pmf(np.arange(min(a, b) + 1), total, a, b))
    return chance


def strata_of(group: npt.NDArray[np.int64], size: npt.NDArray[np.number]) -> npt.NDArray[np.int64]:
    """Units of one group and similar size share a stratum: int64 [units], from 0 without gaps.

    group: int64 [units], from 0. size: [units]. Each group is cut by size into at most PARTS parts of about LEAST_IN_PART or more. Units of one
    size stay together: neighbours in a file are often related, so a cut by their order would make agreement look like chance.
    """
    strata = np.empty(len(group), dtype=np.int64)
    used = 0
    for number in range(int(group.max(initial=-1)) + 1):
        units = np.flatnonzero(group == number)
        n_parts = max(1, min(PARTS, len(units) // LEAST_IN_PART))
        rank = np.searchsorted(np.sort(size[units]), size[units])  # units below: the same for equal sizes
        _, part = np.unique(rank * n_parts // max(len(units), 1), return_inverse=True)
        strata[units] = used + part
        used += int(part.max(initial=-1)) + 1
    return strata
