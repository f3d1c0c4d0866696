"""Which features fire in the same items, more often than their units and both margins explain.

The unit of inference is the item, never the token. Of the tokens of unit u (a gene, an amino acid) a share p_iu makes feature i fire. An item is *high*
in feature i when the feature fires in more of its tokens than sum over tokens of p_iu: more than its units say. O_ij is the number of items that are
high in both. An item in which i and j each fire on one unit alone, and on the same one, does not count: two features of one gene are no module.

    G_ij    = 2 sum over the four cells of O ln(O / E), with the sign of O_ij - E_ij     E_ij: see margins.py
    PMI_ij  = log2( (O_ij + SHRINK) / (E_ij + SHRINK) )

A pair with E_ij below LEAST_EXPECTED is not looked at. A pair is kept when its G is above the largest G of all pairs in all draws that keep both margins: with n draws, a
table without any relation has one such pair or more with a probability of at most 1 / (1 + n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.special import xlogy

from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.cross_layer.activations import SparseRows
from sae_genomics.cross_layer.margins import Fires, Floats, Strata, draws, expected_pairs

SHRINK = 1.0  # items
LEAST_EXPECTED = 5.0  # items
LEAST_ITEMS = 10  # a feature is high in at least so many items, and not in at least so many
_SLACK = 1e-6  # sums of shares are not exact


@dataclass(frozen=True)
class High:
    """Which items are high in which features.

    fires: bool [items, features]. alone: float32 [(item, unit), features], 1 where the item is high in the feature, which fires on that one unit alone.
    item: int64, the item of each row of alone.
    """

    fires: Fires
    alone: csr_matrix
    item: npt.NDArray[np.int64]

    def take(self, items: npt.NDArray[np.bool_], features: npt.NDArray[np.int64]) -> High:
        """Some items and features. items: bool [items]. features: positions."""
        number = np.cumsum(items) - 1
        rows = items[self.item]
        return High(self.fires[np.ix_(items, features)], self.alone[rows][:, features], number[self.item[rows]])


def as_matrix(rows: SparseRows, d_sae: int) -> csr_matrix:
    """[tokens, features]."""
    return csr_matrix((rows.value, rows.feature, rows.indptr), shape=(len(rows.indptr) - 1, d_sae))


def high_items(active: csr_matrix, item: npt.NDArray[np.integer], unit: npt.NDArray[np.integer], n_items: int) -> High:
    """See the module's text.

    active: [tokens, features], activations. item: int [tokens], from 0 to n_items. unit: int [tokens]; -1: the token is left out.
    """
    known = np.asarray(unit) >= 0
    ones = csr_matrix(active[known], dtype=np.float32, copy=True)
    ones.eliminate_zeros()
    ones.data[:] = 1.0
    item, unit = np.asarray(item)[known].astype(np.int64), np.asarray(unit)[known].astype(np.int64)
    n_units = int(unit.max(initial=-1)) + 1
    cells, of_cell = np.unique(item * max(n_units, 1) + unit, return_inverse=True)  # cell: an item and a unit of it
    cell_item, cell_unit = cells // max(n_units, 1), cells % max(n_units, 1)
    by_cell = _sum_rows(ones, of_cell, len(cells))  # tokens in which a feature fires
    n_tokens = np.bincount(of_cell, minlength=len(cells)).astype(np.float32)
    count = _sum_rows(by_cell, cell_item, n_items)
    by_unit = _sum_rows(by_cell, cell_unit, n_units)
    tokens_of_unit = np.bincount(unit, minlength=n_units)
    share = csr_matrix(by_unit.multiply(1.0 / np.maximum(tokens_of_unit, 1)[:, None]))
    tokens = csr_matrix((n_tokens, (cell_item, cell_unit)), shape=(n_items, n_units))
    fires = (count - (tokens @ share)).toarray() > _SLACK
    marks = csr_matrix(by_cell, copy=True)
    marks.data[:] = 1.0
    n_cells = _sum_rows(marks, cell_item, n_items).toarray()
    row = np.repeat(np.arange(len(cells)), np.diff(marks.indptr))
    alone = (n_cells == 1) & fires
    marks.data[:] = alone[cell_item[row], marks.indices]
    marks.eliminate_zeros()
    return High(fires, marks, cell_item)


def _sum_rows(matrix: csr_matrix, row: npt.NDArray[np.int64], n: int) -> csr_matrix:
    """Rows of the same number added up: [n, columns]."""
    members = csr_matrix((np.ones(len(row), np.float32), (row, np.arange(len(row)))), shape=(n, len(row)))
    return csr_matrix(members @ matrix)


def usable_features(fires: Fires, most: int) -> npt.NDArray[np.int64]:
    """Features that are high in enough items and not in all, ascending; of more than `most` those that split the items most evenly."""
    high = fires.sum(axis=0)
    spread = np.minimum(high, len(fires) - high)
    found = np.flatnonzero(spread >= LEAST_ITEMS)
    return np.sort(found[np.argsort(-spread[found], kind="stable")[:most]])


def observed_pairs(high: High, other: High | None = None) -> Floats:
    """O_ij, float64 [features, features of other]. other: the same items in another layer, there a token of one unit may have features of both."""
    second = high if other is None else other
    both = high.fires.astype(np.float32).T @ second.fires.astype(np.float32)
    return np.asarray(both, np.float64) - (high.alone.T @ second.alone).toarray()


def signed_g(observed: Floats, expected: Floats, first: Floats, second: Floats, n: float | Floats) -> Floats:
    """G with the sign of observed - expected. first, second: items high in either feature; n: items. Arrays broadcast."""
    total = np.zeros(np.broadcast(observed, expected).shape)
    shift = observed - expected
    for seen, sign in (
        (observed, 1.0),
        (first - observed, -1.0),
        (second - observed, -1.0),
        (n - first - second + observed, 1.0),
    ):
        seen = np.maximum(seen, 0.0)
        total += xlogy(seen, np.maximum(seen, 1e-300) / np.maximum(seen - sign * shift, 1e-9))
    return np.sign(shift) * 2 * np.maximum(total, 0.0)


def shrunk_pmi(observed: Floats, expected: Floats) -> Floats:
    """PMI of the module's text."""
    found: Floats = np.log2((observed + SHRINK) / (expected + SHRINK))
    return found


@dataclass(frozen=True)
class Together:
    """Pairs of features that fire together beyond chance, and what chance gave.

    pairs: DataFrame with first, second (positions; first < second within one layer), n_both, expected, pmi, g, p_value, q_value; the strongest first.
    threshold: the largest G of all draws. strongest: float64 [draws], each draw's largest G. n_pairs: pairs looked at.
    null: of each draw, its pairs of largest G as positions and PMI, as many as are kept.
    """

    pairs: pd.DataFrame
    threshold: float
    strongest: Floats
    n_pairs: int
    null: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]]


def together(
    high: High, stratum: Strata, n_draws: int, seed: Sequence[int], most: int, other: High | None = None
) -> Together:
    """Pairs of one layer, or of a layer and another, see the module's text. most: pairs kept; where more are above chance the strongest."""
    second = high if other is None else other
    expected = expected_pairs(high.fires, stratum, None if other is None else other.fires)
    first_sum, second_sum = (each.fires.sum(axis=0).astype(np.float64) for each in (high, second))
    looked = expected >= LEAST_EXPECTED
    if other is None:
        looked = np.triu(looked, 1)
    rows, columns = np.nonzero(looked)

    def g_of(observed: Floats) -> Floats:
        return signed_g(
            observed[rows, columns], expected[rows, columns], first_sum[rows], second_sum[columns], len(stratum)
        )

    observed = observed_pairs(high, other)
    g = g_of(observed)
    strongest, n_pooled = np.full(n_draws, -np.inf), 0
    null_g: list[Floats] = []
    tables: list[tuple[Floats, Floats]] = []
    first_draws = draws(high.fires, stratum, n_draws, [*seed, 1])
    second_draws = first_draws if other is None else draws(other.fires, stratum, n_draws, [*seed, 2])
    for number in range(n_draws if len(rows) else 0):
        left = next(first_draws).astype(np.float32)
        right = left if other is None else next(second_draws).astype(np.float32)
        counts = np.asarray(left.T @ right, np.float64)
        of_draw = g_of(counts)
        strongest[number] = of_draw.max()
        if n_pooled < _POOLED:
            null_g.append(of_draw)
            n_pooled += len(of_draw)
        tables.append((counts, of_draw))
        if len(tables) > _NULL_GRAPHS:
            tables.pop(0)
    threshold = float(strongest.max(initial=-np.inf))
    kept = np.flatnonzero(g > max(threshold, 0.0))
    kept = kept[np.argsort(-g[kept], kind="stable")[:most]]
    p = _null_p(g, null_g)
    q = benjamini_hochberg(p)
    i, j = rows[kept], columns[kept]
    pairs = pd.DataFrame(
        {
            "first": i, "second": j, "n_both": observed[i, j], "expected": expected[i, j],
            "pmi": shrunk_pmi(observed[i, j], expected[i, j]), "g": g[kept], "p_value": p[kept], "q_value": q[kept],
        }
    )  # fmt: skip
    null = []
    for counts, of_draw in tables:
        top = np.argsort(-of_draw, kind="stable")[: len(kept)]
        i, j = rows[top], columns[top]
        null.append((i, j, np.maximum(shrunk_pmi(counts[i, j], expected[i, j]), 1e-6)))
    return Together(pairs, threshold, strongest, len(rows), null)


_NULL_GRAPHS = 5  # draws whose strongest pairs are kept: graphs of chance
_POOLED = 10_000_000  # values of G of draws: with as many, further draws are not added to them


def _null_p(g: Floats, null: list[Floats]) -> Floats:
    """(1 + values of the draws that reach g) / (1 + all values of the draws)."""
    if not null:
        return np.ones(len(g))
    pooled = np.sort(np.concatenate(null))
    reached = len(pooled) - np.searchsorted(pooled, g, side="left")
    return np.asarray((1.0 + reached) / (1.0 + len(pooled)), np.float64)
