"""Units against cell types where groups of cells (donors, samples, batches: `data.group_key`) are the replicates.

Cells of one group are alike, so a thousand cells of one donor are not a thousand observations. Each held-out group counts once.

A type that varies within groups, such as a cell type: a_g is the AUROC of the type's cells against the other cells of group g, over
the G groups with at least LEAST_CELLS of either.

    auroc = mean(a_g)      t = (auroc - 1/2) / se      p = 2 P(T > |t|), T with G - 1 degrees of freedom
    interval = auroc +- t(0.975) se, cut at 0 and 1     se^2 = max( var(a_g) / G, sum(v_g) / G^2 )

v_g is the variance that a_g has from the group's numbers of cells alone: Newcombe's V (see intervals.py) at (m a_g + 1/2) / (m + 1), m the smaller of the
two numbers, times what ties leave of it. Without that floor three groups that happen to agree to the last digit, at 1.000 say, would give p = 0.
Fewer than LEAST_GROUPS groups give no p and no interval.

Why not a cluster bootstrap: held-out groups are few, often three to ten. From so few values a bootstrap's intervals are too narrow and its
p-values as coarse as the few ways to draw them. And a comparison within a donor cancels what donors differ in, also where
the share of the type differs from donor to donor; an AUROC over all cells at once, resampled or not, does not.

A type that is constant within groups, such as a diagnosis: a group has no AUROC then. Each group is its cells' mean, and the groups with the type are
compared with those without it by Mann-Whitney's test, at least LEAST_A_SIDE groups on either side. p is exact: by counting arrangements, with ties by going through all of
them up to MOST_ARRANGEMENTS; normal (with tie and continuity correction) only beyond that, and where both sides have more than 8 groups.
The interval is Newcombe's with groups as the observations.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from math import comb

import numpy as np
import numpy.typing as npt
from scipy import sparse, stats

from sae_genomics.associations.intervals import auroc_interval, auroc_variance
from sae_genomics.associations.mann_whitney import RankStatistics, group_tests, rank_statistics, tied_exact_p
from sae_genomics.data.groups import LEAST_FOR_A_TEST

LEAST_CELLS = 5  # of the type, and of others, for a group's AUROC; cells of a group for its mean
LEAST_GROUPS = LEAST_FOR_A_TEST
LEAST_A_SIDE = 2
MOST_ARRANGEMENTS = 5000


@dataclass(frozen=True)
class TypeTests:
    """Units x types, float64 [units, types]; NaN where nothing could be compared.

    auroc; auroc_low, auroc_high: 95 % interval; p_value: two-sided; mean_in, mean_out; effect_size: Hedges' g.
    """

    auroc: npt.NDArray[np.float64]
    auroc_low: npt.NDArray[np.float64]
    auroc_high: npt.NDArray[np.float64]
    p_value: npt.NDArray[np.float64]
    mean_in: npt.NDArray[np.float64]
    mean_out: npt.NDArray[np.float64]
    effect_size: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """The annotated cells of one side of the split.

    kind: int64 [cells], the cell's type. donor: int64 [cells], its group. constant: bool [types], whether a type is all or none of
    every group's cells, on both sides of the split.
    """

    kind: npt.NDArray[np.int64]
    donor: npt.NDArray[np.int64]
    constant: npt.NDArray[np.bool_]

    def sizes(self) -> npt.NDArray[np.int64]:
        """Cells of each group and type: int64 [groups, types]."""
        return group_sizes(self.kind, self.donor, len(self.constant))

    def n_within(self) -> npt.NDArray[np.int64]:
        """Groups that have an AUROC of the type: int64 [types]."""
        sizes = self.sizes()
        rest = sizes.sum(axis=1, keepdims=True) - sizes
        return ((sizes >= LEAST_CELLS) & (rest >= LEAST_CELLS)).sum(axis=0)

    def n_between(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Groups with enough cells that are of each constant type, and those that are not: int64 [types] each."""
        sizes = self.sizes()
        large = sizes[sizes.sum(axis=1) >= LEAST_CELLS]
        inside = (large > 0).sum(axis=0)
        return inside, len(large) - inside

    def n_groups(self) -> npt.NDArray[np.int64]:
        """Groups behind each type's numbers: int64 [types]."""
        return np.where(self.constant, sum(self.n_between()), self.n_within())

    def untested(self) -> list[str | None]:
        """Why each type has no p-value; None where it has one."""
        reasons: list[str | None] = []
        for constant, n, n_in, n_out in zip(self.constant, self.n_within(), *self.n_between(), strict=True):
            if constant and min(n_in, n_out) < LEAST_A_SIDE:
                reasons.append(
                    f"held-out groups of the type: {n_in}, of others: {n_out}; a test needs {LEAST_A_SIDE} of each"
                )
            elif not constant and n < LEAST_GROUPS:
                reasons.append(
                    f"held-out groups with at least {LEAST_CELLS} cells of the type and {LEAST_CELLS} others: {n}; "
                    f"a test needs {LEAST_GROUPS}"
                )
            else:
                reasons.append(None)
        return reasons


def group_sizes(kind: npt.NDArray[np.int64], donor: npt.NDArray[np.int64], n_types: int) -> npt.NDArray[np.int64]:
    """Cells of each group and type: int64 [groups, types]."""
    n_donors = int(donor.max(initial=-1)) + 1
    return np.bincount(donor * n_types + kind, minlength=n_donors * n_types).reshape(n_donors, n_types)


def constant_types(kind: npt.NDArray[np.int64], donor: npt.NDArray[np.int64], n_types: int) -> npt.NDArray[np.bool_]:
    """Types that are all or none of every group's cells: bool [types]."""
    sizes = group_sizes(kind, donor, n_types)
    return ((sizes == 0) | (sizes == sizes.sum(axis=1, keepdims=True))).all(axis=0)


def compare_by_group(rows: sparse.csr_matrix, side: Side) -> TypeTests:
    """Every column against every type, see the module's text.

    rows: [cells, units]; implicit zeros below every stored value.
    """
    within = _within(rows, side)
    if not side.constant.any():
        return within
    between = _between(rows, side)
    return TypeTests(
        *(
            np.where(side.constant, getattr(between, field.name), getattr(within, field.name))
            for field in fields(TypeTests)
        )
    )


class _Mean:
    """Running mean and squared deviations [units, types] of what groups give, those left out that give NaN."""

    def __init__(self, shape: tuple[int, int]):
        self.n, self.mean, self.squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)

    def add(self, values: npt.NDArray[np.float64], used: npt.NDArray[np.bool_]) -> None:
        used = used & np.isfinite(values)
        self.n += used
        delta = np.where(used, values - self.mean, 0.0)
        self.mean += delta / np.maximum(self.n, 1)
        self.squares += np.where(used, delta * (values - self.mean), 0.0)

    def get(self) -> npt.NDArray[np.float64]:
        return np.where(self.n > 0, self.mean, np.nan)


def _within(rows: sparse.csr_matrix, side: Side) -> TypeTests:
    shape = (rows.shape[1], len(side.constant))
    names = ("auroc", "mean_in", "mean_out", "effect_size")
    means, least = {name: _Mean(shape) for name in names}, np.zeros(shape)
    order = np.argsort(side.donor, kind="stable")
    rows, kind = rows[order], side.kind[order]
    ends = np.concatenate([[0], np.cumsum(np.bincount(side.donor))])
    for start, stop in pairwise(ends):
        if stop - start < 2 * LEAST_CELLS:
            continue
        of_group = rank_statistics(rows[start:stop].tocsc(), kind[start:stop], shape[1], LEAST_CELLS)
        used = np.isfinite(of_group.auroc)
        for name in names:
            means[name].add(getattr(of_group, name), used)
        least += np.where(used, _sampling_variance(of_group, np.bincount(kind[start:stop], minlength=shape[1])), 0.0)
    low, high, p = _t_test(means["auroc"], least)
    return TypeTests(means["auroc"].get(), low, high, p, *(means[name].get() for name in names[1:]))


def _sampling_variance(within: RankStatistics, size: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """v_g of the module's text. found: of one group. size: int64 [types], its cells of each type."""
    rest = size.sum() - size
    smaller = np.minimum(size, rest)
    with np.errstate(divide="ignore", invalid="ignore"):
        off_the_edge = (smaller * within.auroc + 0.5) / (smaller + 1)
        ties = within.null_variance / auroc_variance(0.5, size, rest)  # 1 without any
        return auroc_variance(off_the_edge, size, rest) * ties


def _t_test(auroc: _Mean, least: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Ends of the interval, and p: [units, types] each."""
    n, enough = auroc.n, auroc.n >= LEAST_GROUPS
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(np.maximum(auroc.squares / (n - 1) / n, least / n**2))
        p = 2 * stats.t.sf(np.abs(auroc.mean - 0.5) / error, n - 1)
        reach = stats.t.ppf(0.975, n - 1) * error
    flat = error == 0  # every value tied in every group: nothing speaks against chance, and nothing bounds the AUROC
    known = enough & ~flat
    low = np.where(known, np.maximum(auroc.mean - reach, 0.0), np.nan)
    high = np.where(known, np.minimum(auroc.mean + reach, 1.0), np.nan)
    return low, high, np.where(enough, np.where(flat, 1.0, p), np.nan)


def _between(rows: sparse.csr_matrix, side: Side) -> TypeTests:
    sizes = side.sizes()
    cells = sizes.sum(axis=1)
    large = np.flatnonzero(cells >= LEAST_CELLS)
    member = sparse.csr_matrix(
        (np.ones(len(side.donor)), (side.donor, np.arange(len(side.donor)))), shape=(len(cells), len(side.donor))
    )
    means = (member[large] @ rows).toarray() / cells[large, None]
    kind = sizes[large].argmax(axis=1) if len(large) else np.zeros(0, np.int64)
    tests = group_tests(_all_stored(means), kind, len(side.constant), min_cells=1)
    n_in, n_out = side.n_between()
    tested = (n_in >= LEAST_A_SIDE) & (n_out >= LEAST_A_SIDE)
    p = np.where(tested, tests.p_value, np.nan)
    tied = (np.diff(np.sort(means, axis=0), axis=0) == 0).any(axis=0)
    for t in np.flatnonzero(tested & side.constant):
        if tied.any() and comb(len(large), int(n_in[t])) <= MOST_ARRANGEMENTS:
            p[tied, t] = tied_exact_p(means[:, tied], kind == t)
    low, high = auroc_interval(np.where(tested, tests.auroc, np.nan), n_in, n_out)
    return TypeTests(tests.auroc, low, high, p, tests.mean_in, tests.mean_out, tests.effect_size)


def _all_stored(values: npt.NDArray[np.float64]) -> sparse.csc_matrix:
    """Zeros stored like any other value: among values below zero they would else rank lowest."""
    n, columns = values.shape
    return sparse.csc_matrix(
        (values.T.ravel(), np.tile(np.arange(n), columns), np.arange(columns + 1) * n), shape=(n, columns)
    )
