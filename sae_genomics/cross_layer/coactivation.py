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

from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.cross_layer.activations import SparseRows
from sae_genomics.cross_layer.margins import Fires, Floats, Strata, draws, expected_factors
from sae_genomics.kernels.arrays import Pairs
from sae_genomics.kernels.pair_g import pair_g
from sae_genomics.kernels.plain.pair_g import Words, signed_g
from sae_genomics.progress import stop_point

__all__ = ["High", "Together", "as_matrix", "high_items", "signed_g", "together", "usable_features"]

SHRINK = 1.0  # items
LEAST_EXPECTED = 5.0  # items
LEAST_ITEMS = 10  # a feature is high in at least so many items, and not in at least so many
ROWS_AT_ONCE = 256  # features whose pairs are worked on together
_NULL_GRAPHS = 5  # draws whose strongest pairs are kept: graphs of chance
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


def looked_at(high: High, stratum: Strata, other: High | None = None) -> list[Pairs]:
    """The pairs whose E is at least LEAST_EXPECTED, some rows at a time: no matrix of all pairs is made."""
    second = high if other is None else other
    left, right = expected_factors(high.fires, stratum, None if other is None else other.fires)
    parts = []
    for row in range(0, high.fires.shape[1], ROWS_AT_ONCE):
        stop_point()
        stop = min(row + ROWS_AT_ONCE, high.fires.shape[1])
        expected = left[:, row:stop].T @ right
        looked = expected >= LEAST_EXPECTED
        if other is None:
            looked &= np.arange(expected.shape[1])[None] > np.arange(row, stop)[:, None]
        column = np.nonzero(looked)[1].astype(np.int32)
        ptr = np.concatenate([[0], np.cumsum(looked.sum(axis=1, dtype=np.int64))])
        alone = csr_matrix(high.alone[:, row:stop].T @ second.alone)
        less = np.zeros(0, np.int32) if not alone.nnz else alone.toarray()[looked].astype(np.int32)
        if len(column):
            parts.append(Pairs(row, ptr, column, expected[looked], less))
    return parts


def as_bits(fires: Fires) -> Words:
    """The items of each feature as bits: uint64 [features, words]."""
    packed = np.packbits(fires.T, axis=1)
    words = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.view(np.uint64)


def together(
    high: High, stratum: Strata, n_draws: int, seed: Sequence[int], most: int, other: High | None = None
) -> Together:
    """Pairs of one layer, or of a layer and another, see the module's text. most: pairs kept; where more are above chance the strongest."""
    second = high if other is None else other
    parts = looked_at(high, stratum, other)
    n_pairs = sum(len(part.column) for part in parts)
    sums = tuple(each.fires.sum(axis=0).astype(np.float64) for each in (high, second))
    of_chance = [part._replace(less=np.zeros(0, np.int32)) for part in parts]
    strongest = np.full(n_draws, -np.inf)
    null: list[_Largest] = []
    first_draws = draws(high.fires, stratum, n_draws, [*seed, 1])
    second_draws = first_draws if other is None else draws(other.fires, stratum, n_draws, [*seed, 2])
    for number in range(n_draws if parts else 0):
        left = as_bits(next(first_draws))
        right = left if other is None else as_bits(next(second_draws))
        if number < n_draws - _NULL_GRAPHS:
            for part in of_chance:
                g = pair_g((left, right), part, sums, len(stratum), strongest[number])[1]
                strongest[number] = max(strongest[number], g.max())
        else:
            null.append(_largest((left, right), of_chance, sums, len(stratum), -np.inf, most))
            strongest[number] = null[-1].g[0]
    threshold = float(strongest.max(initial=-np.inf))
    bits = as_bits(high.fires)
    found = _largest(
        (bits, bits if other is None else as_bits(other.fires)), parts, sums, len(stratum), max(threshold, 0.0), most
    )
    # no draw reaches a pair that is kept; a pair that is not kept counts as if its p were 1
    p = np.full(len(found.g), 1.0 / (1.0 + float(n_pairs) * n_draws))
    pairs = pd.DataFrame(
        {
            "first": found.one, "second": found.two, "n_both": found.both.astype(np.float64), "expected": found.expected,
            "pmi": shrunk_pmi(found.both, found.expected), "g": found.g, "p_value": p, "q_value": benjamini_hochberg(p, n_pairs),
        }
    )  # fmt: skip
    graphs = []
    for each in null:
        top = each.first(len(found.g))
        graphs.append((top.one, top.two, np.maximum(shrunk_pmi(top.both, top.expected), 1e-6)))
    return Together(pairs, threshold, strongest, n_pairs, graphs)


@dataclass(frozen=True)
class _Largest:
    """Pairs of largest G, that first. one, two: positions, int64. both, expected, g: float64."""

    one: npt.NDArray[np.int64]
    two: npt.NDArray[np.int64]
    both: Floats
    expected: Floats
    g: Floats

    def first(self, n: int) -> _Largest:
        """The first n."""
        return _Largest(self.one[:n], self.two[:n], self.both[:n], self.expected[:n], self.g[:n])


def _largest(
    bits: tuple[Words, Words], parts: Sequence[Pairs], sums: tuple[Floats, ...], n: int, above: float, most: int
) -> _Largest:
    """The pairs with the largest G, `most` at most, of those with more than `above`."""
    kept = _Largest(*(np.zeros(0, kind) for kind in (np.int64, np.int64, float, float, float)))
    for part in parts:
        both, g = pair_g(bits, part, (sums[0], sums[1]), n, above)
        at = np.flatnonzero(g > above)
        one = part.row + np.searchsorted(part.ptr, at, side="right") - 1
        columns = (
            one,
            part.column[at].astype(np.int64),
            both[at].astype(float),
            part.expected[at].astype(float),
            g[at],
        )
        joined = [np.concatenate(pair) for pair in zip(vars(kept).values(), columns, strict=True)]
        order = np.argsort(-joined[4], kind="stable")[:most]
        kept = _Largest(*(each[order] for each in joined))
        if len(kept.g) == most:
            above = max(above, float(kept.g[-1]))
    return kept
