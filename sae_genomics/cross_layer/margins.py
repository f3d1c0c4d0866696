"""What chance gives for a table of items and features that keeps both margins: how many features an item has, how many items a feature.

Draws: trades between rows (curveball, `kernels.curveball`). A hub is TRADES trades per row away from the table, and every draw TRADES trades per row
away from the hub. The trades are reversible, so that table and draws are exchangeable however well the trades mix: the p-values
that come from them are valid (Besag and Clifford 1989, Biometrika 76:633).

Expected counts: the configuration model. Item t has feature j with probability p_tj = x_t y_j / (1 + x_t y_j), with x and y such that the sums over
rows and columns are those of the table. E_ij = sum_t p_ti p_tj items have both (Saracco et al. 2017, New J. Phys. 19:053022), times one factor for all
pairs, because the model's rows have these sums only on average and the table's have them exactly. Rows of equal sum share their x, columns of
equal sum their y, so that the equations are few.

Strata (groups of items, such as donors): rows are traded only within a stratum, and the configuration model is one per stratum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.curveball import trade_rows
from sae_genomics.progress import stop_point

TRADES = 5  # per row
_ROUNDS = 200

Fires = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Strata = npt.NDArray[np.int64]


def draws(fires: Fires, stratum: Strata, n: int, seed: Sequence[int]) -> Iterator[Fires]:
    """n tables with the margins of `fires`, bool [items, features], in each stratum (int64 [items], from 0)."""
    generator = np.random.default_rng(np.random.SeedSequence(list(seed)))
    hub = np.ascontiguousarray(fires).copy()
    _trade(hub, stratum, generator)
    for _ in range(n):
        stop_point()
        table = hub.copy()
        _trade(table, stratum, generator)
        yield table


def _trade(table: Fires, stratum: Strata, generator: np.random.Generator) -> None:
    pairs = random_pairs(stratum, TRADES * len(table), generator)
    trade_rows(table, pairs, generator.integers(0, 1 << 64, len(pairs), dtype=np.uint64))


def random_pairs(stratum: Strata, n: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Pairs of different rows of one stratum: int64 [at most n, 2]. A row without another in its stratum is in none."""
    order = np.argsort(stratum, kind="stable")
    sizes = np.bincount(stratum) if len(stratum) else np.zeros(0, np.int64)
    first = np.cumsum(sizes) - sizes
    one = generator.integers(0, max(len(stratum), 1), n if len(stratum) else 0)  # positions in `order`
    size, start = sizes[stratum[order[one]]], first[stratum[order[one]]]
    usable = size > 1
    one, size, start = one[usable], size[usable], start[usable]
    other = start + (one - start + generator.integers(1, size)) % size
    return np.column_stack([order[one], order[other]]).astype(np.int64)


def expected_factors(fires: Fires, stratum: Strata, other: Fires | None = None) -> tuple[Floats32, Floats32]:
    """Two tables whose product is E: E_ij = sum over items of left_ti right_tj. float32 [items, features], and [items, features of other].

    other: the same items in another layer; by default the table itself. A matrix of all pairs is left to the caller, who may take some rows at a time.
    """
    second = fires if other is None else other
    left, right = np.zeros(fires.shape, np.float32), np.zeros(second.shape, np.float32)
    for number in np.unique(stratum):
        rows = stratum == number
        p, of_feature = _probabilities(fires[rows])
        factor = _exactly(fires[rows].sum(axis=1), p[:, of_feature]) if other is None else 1.0
        left[rows] = p[:, of_feature] * factor
        if other is not None:
            p, of_feature = _probabilities(second[rows])
        right[rows] = p[:, of_feature]
    return left, right


def _exactly(sums: npt.NDArray[np.integer], p: Floats) -> float:
    """Pairs of features that rows of these sums have, over those that the model gives: its rows have these sums only on average."""
    given = (np.square(p.sum(axis=1)) - np.square(p).sum(axis=1)).sum()
    return float((sums * (sums - 1.0)).sum() / given) if given > 0 else 1.0


def _probabilities(fires: Fires) -> tuple[Floats, npt.NDArray[np.int64]]:
    """p_tj of one stratum: float64 [items, different sums of columns]; and the number of each feature's sum among them."""
    rows, of_row, n_rows = np.unique(fires.sum(axis=1), return_inverse=True, return_counts=True)
    columns, of_column, n_columns = np.unique(fires.sum(axis=0), return_inverse=True, return_counts=True)
    p = configuration(rows.astype(np.float64), columns.astype(np.float64), n_rows, n_columns)
    return p[of_row], of_column.astype(np.int64)


def configuration(
    rows: Floats, columns: Floats, n_rows: npt.NDArray[np.integer], n_columns: npt.NDArray[np.integer]
) -> Floats:
    """p of a row of each sum having a column of each sum: float64 [sums of rows, sums of columns].

    rows, columns: the different sums. n_rows, n_columns: how many rows and columns have them.
    """
    width, height = int(n_columns.sum()), int(n_rows.sum())
    free_rows, free_columns = (rows > 0) & (rows < width), (columns > 0) & (columns < height)
    p = np.zeros((len(rows), len(columns)))
    p[rows == width] = 1.0
    p[:, columns == height] = 1.0
    p[rows == 0] = 0.0
    p[:, columns == 0] = 0.0
    full_columns, full_rows = n_columns[columns == height].sum(), n_rows[rows == width].sum()
    d, c = rows[free_rows] - full_columns, columns[free_columns] - full_rows
    if not len(d) or not len(c):
        return p
    m, n = n_columns[free_columns], n_rows[free_rows]
    x, y = d / np.sqrt((d * n).sum()), c / np.sqrt((c * m).sum())
    for _ in range(_ROUNDS):
        before = x
        x = d / ((m * y) / (1 + np.outer(x, y))).sum(axis=1)
        y = c / ((n[:, None] * x[:, None]) / (1 + np.outer(x, y))).sum(axis=0)
        if np.abs(x / before - 1).max() < 1e-6:
            break
    odds = np.outer(x, y)
    p[np.ix_(free_rows, free_columns)] = odds / (1 + odds)
    return p
