"""Three sums for each pair of a row and a column, in memory bounded by the pairs that occur."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FREE = -1  # the key of an entry that holds no pair
_FIRST_CAPACITY = 1 << 16

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class PairTable:
    """Sums per pair of a row (a gene) and a column (a feature).

    Some rows are dense: they hold all their columns. The pairs of other rows stand in tables. How a table is ordered is for
    `pair_sums.add_pairs` to choose.

    dense_rows: int64 [dense rows], ascending. dense_row: int64 [rows], which dense row a row is; -1 for none.
    dense: float64 [dense rows, columns, 3].
    bounds: int64 [tables + 1]; table i holds rows from bounds[i] to bounds[i + 1], and one thread works on it.
    tables: float64 [capacity, 4] each: the pair's key, row x columns + column (an int64 in the same bytes, so that a look-up touches one cache
        line), and the three sums.
    used: entries of each table that hold a pair.
    """

    def __init__(self, n_rows: int, n_columns: int, dense_rows: Ints, n_tables: int = 1):
        self.n_rows, self.n_columns, self.dense_rows = n_rows, n_columns, dense_rows
        self.dense_row = np.full(n_rows, -1, dtype=np.int64)
        self.dense_row[dense_rows] = np.arange(len(dense_rows))
        self.dense: Floats = np.zeros((len(dense_rows), n_columns, 3))
        self.bounds: Ints = np.linspace(0, n_rows, n_tables + 1).astype(np.int64)
        self.tables = [free_entries(_FIRST_CAPACITY) for _ in range(n_tables)]
        self.used = [0] * n_tables

    @property
    def n_bytes(self) -> int:
        """Memory the sums take."""
        return self.dense.nbytes + sum(table.nbytes for table in self.tables)

    def other_pairs(self) -> tuple[Ints, Ints, Floats]:
        """The pairs of rows that are not dense, in any order: row [n], column [n], sums [n, 3]."""
        entries = np.concatenate([table[keys_of(table) != FREE] for table in self.tables])
        row, column = np.divmod(keys_of(entries), self.n_columns)
        return row, column, entries[:, 1:]


def keys_of(entries: Floats) -> Ints:
    """The keys of a table's entries: int64 [capacity], the same memory."""
    keys: Ints = entries[:, 0].view(np.int64)
    return keys


def free_entries(capacity: int) -> Floats:
    """A table without pairs."""
    entries = np.zeros((capacity, 4))
    keys_of(entries)[:] = FREE
    return entries
