"""Mann-Whitney tests of every column against every group, on sparse columns.

For group t of n1 cells against the other n2 = n - n1, with R1 the sum of the group's midranks:

    U1 = R1 - n1 (n1 + 1) / 2          AUROC = U1 / (n1 n2)      (ties count half)

Two-sided p (Mann and Whitney 1947, Ann. Math. Stat. 18:50; the choice and the continuity correction are those of
scipy.stats.mannwhitneyu): exact when the smaller group has at most 8 cells and the column has no ties, otherwise

    z = (max(U1, U2) - n1 n2 / 2 - 1/2) / sqrt( n1 n2 / 12 (n + 1 - sum(t^3 - t) / (n (n - 1))) ),   p = 2 P(Z > z)

Implicit zeros are one block of ties below every stored value, so the cost is that of sorting what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
from scipy import sparse, stats

from sae_genomics.kernels.rank_sums import rank_sums

EXACT_GROUP = 8


@dataclass(frozen=True)
class RankStatistics:
    """Columns x groups, float64 [columns, groups]; all but the means NaN where a group or its rest is too small to compare.

    auroc; null_variance: that of the AUROC where the groups do not differ, ties included; mean_in, mean_out; effect_size: as in
    GroupTests.
    """

    auroc: npt.NDArray[np.float64]
    null_variance: npt.NDArray[np.float64]
    mean_in: npt.NDArray[np.float64]
    mean_out: npt.NDArray[np.float64]
    effect_size: npt.NDArray[np.float64]


@dataclass(frozen=True)
class GroupTests:
    """Columns x groups, float64 [columns, groups]; NaN where a group or its rest is too small to compare.

    auroc; p_value: two-sided; mean_in, mean_out; effect_size: Hedges' g, NaN where neither side has any spread but
    their means differ, 0 where nothing differs.
    """

    auroc: npt.NDArray[np.float64]
    p_value: npt.NDArray[np.float64]
    mean_in: npt.NDArray[np.float64]
    mean_out: npt.NDArray[np.float64]
    effect_size: npt.NDArray[np.float64]


def group_tests(
    values: sparse.csc_matrix, group: npt.NDArray[np.integer], n_groups: int, min_cells: int = 2
) -> GroupTests:
    """Test every column of `values` for every group against the rest.

    values: [cells, columns], stored values above zero (explicit zeros and negative values are allowed only in columns
        that have no implicit zero).
    group: int [cells], 0 to n_groups - 1; -1 for cells of no group, which are left out altogether.
    min_cells: a group, and its rest, needs as many cells; otherwise everything but the means is NaN.
    """
    ranked, u, size, rest, ties = _statistics(values, group, n_groups, min_cells)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(np.isnan(ranked.auroc), np.nan, _two_sided(u, size, rest, ties))
    return GroupTests(ranked.auroc, p, ranked.mean_in, ranked.mean_out, ranked.effect_size)


def rank_statistics(
    values: sparse.csc_matrix, group: npt.NDArray[np.integer], n_groups: int, min_cells: int = 2
) -> RankStatistics:
    """What `group_tests` gives short of p-values, which take most of its time where there are few cells; the same arguments."""
    return _statistics(values, group, n_groups, min_cells)[0]


def _statistics(values, group, n_groups, min_cells):  # type: ignore[no-untyped-def]
    """The statistics; and U, sizes of groups and of their rest, and sum(t^3 - t) of each column, for p-values."""
    group = np.asarray(group, dtype=np.int64)
    if (group < 0).any():
        values, group = values.tocsr()[group >= 0].tocsc(), group[group >= 0]
    size = np.bincount(group, minlength=n_groups).astype(np.float64)
    rest = len(group) - size
    ranks, sums, squares, ties = rank_sums(values, group, n_groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = ranks - size * (size + 1) / 2
        auroc = u / (size * rest)
        null_variance = _variance(size, rest, ties) / (size * rest) ** 2
        mean_in, mean_out = sums / size, (sums.sum(axis=1, keepdims=True) - sums) / rest
        effect = _hedges_g(sums, squares, size, rest, mean_in, mean_out)
    untested = (size < min_cells) | (rest < min_cells)
    for result in (auroc, null_variance, effect):
        result[:, untested] = np.nan
    return RankStatistics(auroc, null_variance, mean_in, mean_out, effect), u, size, rest, ties


def _hedges_g(sums, squares, size, rest, mean_in, mean_out):  # type: ignore[no-untyped-def]
    """g = J (m1 - m2) / s_pooled, J = 1 - 3 / (4 (n1 + n2) - 9) (Hedges 1981, J. Educ. Stat. 6:107)."""
    inside = np.maximum(squares - sums * mean_in, 0.0)
    outside = np.maximum(squares.sum(axis=1, keepdims=True) - squares - (rest * mean_out) * mean_out, 0.0)
    # what subtracting nearly equal sums leaves is no spread
    noise = 1e-12 * squares.sum(axis=1, keepdims=True)
    spread = np.where(inside + outside > noise, inside + outside, 0.0)
    pooled = np.sqrt(spread / (size + rest - 2))
    difference = mean_in - mean_out
    g = difference / pooled * (1 - 3 / (4 * (size + rest) - 9))
    return np.where(pooled > 0, g, np.where(difference == 0, 0.0, np.nan))


def _variance(size, rest, ties):  # type: ignore[no-untyped-def]
    """Of U where the groups do not differ: float64 [columns, groups]."""
    n = size + rest
    return size * rest / 12 * ((n + 1) - ties[:, None] / (n * (n - 1)))


def _two_sided(u, size, rest, ties):  # type: ignore[no-untyped-def]
    larger = np.maximum(u, size * rest - u)
    variance = _variance(size, rest, ties)
    z = (larger - size * rest / 2 - 0.5) / np.sqrt(variance)
    p = np.where(variance > 0, 2 * stats.norm.sf(z), 1.0)
    tieless = ties == 0
    if tieless.any():
        for t in np.flatnonzero((np.minimum(size, rest) <= EXACT_GROUP) & (np.minimum(size, rest) >= 1)):
            tail = exact_tail(int(size[t]), int(rest[t]))
            p[tieless, t] = 2 * tail[np.rint(larger[tieless, t]).astype(np.int64)]
    return np.minimum(p, 1.0)


def tied_exact_p(values: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Two-sided p of U by every arrangement of the members, ties and all: float64 [columns].

    values: [n, columns]. inside: bool [n]. The share of the C(n, n1) choices of n1 members whose U is as far from its middle
    as the one at hand.
    """
    n, n1 = len(inside), int(inside.sum())
    ranks = stats.rankdata(values, axis=0)
    members = np.array(list(combinations(range(n), n1)), dtype=np.int64).reshape(-1, n1)
    choices = np.zeros((len(members), n))
    choices[np.arange(len(members))[:, None], members] = 1.0
    middle = n1 * (n + 1) / 2
    seen = np.abs(ranks[inside].sum(axis=0) - middle)
    at_once = max(1, (1 << 22) // len(choices))
    parts = []
    for first in range(0, values.shape[1], at_once):
        columns = slice(first, first + at_once)
        parts.append((np.abs(choices @ ranks[:, columns] - middle) >= seen[columns] - 1e-9).mean(axis=0))
    return np.concatenate(parts) if parts else np.zeros(0)


@lru_cache(maxsize=256)
def exact_tail(n1: int, n2: int) -> npt.NDArray[np.float64]:
    """P(U >= u) without ties, u = 0 … n1 n2: float64 [n1 n2 + 1].

    The number of arrangements with U = u is the coefficient of q^u in the Gaussian binomial coefficient
    prod_{i=1..m} (1 - q^(n+i)) / (1 - q^i), here in whole numbers, so that no digit is lost far in the tail.
    """
    m, n = min(n1, n2), max(n1, n2)
    counts = np.zeros(m * n + 1, dtype=np.int64 if comb(m + n, m) < 2**62 else object)
    counts[0] = 1
    for i in range(1, m + 1):
        if n + i <= m * n:
            counts[n + i :] -= counts[: -(n + i)].copy()
        padded = np.concatenate([counts, np.zeros(-len(counts) % i, dtype=counts.dtype)]).reshape(-1, i)
        counts = np.cumsum(padded, axis=0).ravel()[: m * n + 1]
    cumulative = np.cumsum(counts)[::-1]  # symmetric: P(U >= u) = P(U <= n1 n2 - u)
    return np.asarray(cumulative / comb(m + n, m), dtype=np.float64)
