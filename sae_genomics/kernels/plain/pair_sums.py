"""Sums per pair of a row (a gene) and a column (a feature).

With a the activation of column f at token t, w the token's weight and u its row:

    sums[u, f] += (a w, a, 1)        for every a > 0 of every token with u >= 0
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Active
from sae_genomics.kernels.pair_table import FREE, PairTable, free_entries, keys_of


def add_pairs(table: PairTable, row: npt.NDArray[np.integer], weight: npt.NDArray[np.floating], active: Active) -> None:
    """Add the activations of some tokens. row: int [T], -1 for tokens that do not count. weight: float [T]. active: of the T tokens.

    A pair's sums are added in the order of its tokens.
    """
    token = np.repeat(np.arange(len(row)), np.diff(active.ptr))
    counted = np.flatnonzero(row[token] >= 0)
    token, a = token[counted], active.activation[counted].astype(np.float64)
    of_pair, column = row[token].astype(np.int64), active.unit[counted]
    values = (a * weight[token], a, np.ones(len(a)))

    dense_row = table.dense_row[of_pair]
    dense = dense_row >= 0
    _add(table.dense.reshape(-1, 3), (dense_row * table.n_columns + column)[dense], values, dense)

    key = (of_pair * table.n_columns + column)[~dense]
    entries = _with_keys(table.tables[0], key)
    _add(entries[:, 1:], np.searchsorted(keys_of(entries), key), values, ~dense)
    table.tables[0], table.used[0] = entries, len(entries)


def _add(
    sums: npt.NDArray[np.float64], index: npt.NDArray[np.int64],
    values: tuple[npt.NDArray[np.float64], ...], some: npt.NDArray[np.bool_],
) -> None:  # fmt: skip
    for column, value in enumerate(values):
        np.add.at(sums[:, column], index, value[some])


def _with_keys(entries: npt.NDArray[np.float64], key: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The same entries and those of new keys, ascending by key, without free ones."""
    entries = entries[keys_of(entries) != FREE]
    new = np.setdiff1d(key, keys_of(entries))
    if not len(new):
        return entries
    added = free_entries(len(new))
    keys_of(added)[:] = new
    return np.insert(entries, np.searchsorted(keys_of(entries), new), added, axis=0)
