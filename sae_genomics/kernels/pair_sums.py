"""Sums per pair of a row and a column: dense rows, and hash tables for the pairs of the others.

A block's tokens are taken row by row, so that a row stays in the cache. Rows are cut among threads, so that no two write the
same pair. A pair's sums are added in the order of its tokens, whatever the block size, the number of threads and the way it is kept.
The three sums stand side by side, so that an update touches one or two cache lines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Active
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel, inner
from sae_genomics.kernels.grouping import by_group
from sae_genomics.kernels.pair_table import FREE, PairTable, free_entries
from sae_genomics.kernels.plain import pair_sums as plain

_MAX_LOAD = 0.6  # share of a table's entries in use, above which it grows


class _Tokens(NamedTuple):
    """Tokens of one thread, row by row. order: which. row: of the sums; of each of them. active, weight: of all of the block."""

    order: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    active: Active
    weight: npt.NDArray[np.float32]


@instead_of(plain.add_pairs)
def add_pairs(table: PairTable, row: npt.NDArray[np.integer], weight: npt.NDArray[np.floating], active: Active) -> None:
    group_ptr, order = by_group(row, table.n_rows)
    cuts = group_ptr[table.bounds]

    def add(first: int, last: int) -> None:
        for part in range(first, last):
            mine = order[cuts[part] : cuts[part + 1]]
            of_token = row[mine].astype(np.int64)
            dense_row = table.dense_row[of_token]
            dense = dense_row >= 0
            _add_dense(table.dense, _Tokens(mine[dense], dense_row[dense], active, weight))
            if not dense.all():
                _add_to_table(table, part, _Tokens(mine[~dense], of_token[~dense], active, weight))

    each_range(len(table.tables), 1, add)


def _add_to_table(table: PairTable, part: int, tokens: _Tokens) -> None:
    done = 0
    while done < len(tokens.order):
        entries = table.tables[part]
        keys = entries.view(np.int64)
        most = int(len(entries) * _MAX_LOAD)
        done, table.used[part] = _add_hashed(keys, entries, done, table.used[part], most, tokens, table.n_columns)
        if done < len(tokens.order):
            larger = free_entries(2 * len(entries))
            _rehash(keys, entries, larger.view(np.int64), larger)
            table.tables[part] = larger


@exact_kernel
def _add_dense(sums, tokens):  # type: ignore[no-untyped-def]
    """Add tokens to dense rows [rows, columns, 3]."""
    # unsigned indices: without Python's rule for negative ones this takes two thirds of the time
    order, row, weight = tokens.order, tokens.row, tokens.weight
    ptr, column, activation = tokens.active.ptr, tokens.active.unit, tokens.active.activation
    for o in range(len(order)):
        t = order[o]
        r = np.uint64(row[o])
        w = np.float64(weight[t])
        for i in range(np.uint64(ptr[t]), np.uint64(ptr[t + 1])):
            c = np.uint64(column[i])
            a = np.float64(activation[i])
            sums[r, c, np.uint64(0)] += a * w
            sums[r, c, np.uint64(1)] += a
            sums[r, c, np.uint64(2)] += 1.0


@inner
def _entry(keys, key):  # type: ignore[no-untyped-def]
    """The index of the key's entry, or of the free one where it belongs. Linear probing; capacities are powers of two."""
    mask = np.uint64(len(keys) - 1)
    mixed = np.uint64(key) * np.uint64(11400714819323198485)  # Fibonacci hashing: 2^64 / golden ratio, odd
    index = (mixed >> np.uint64(32)) & mask
    while keys[index, np.uint64(0)] != FREE and keys[index, np.uint64(0)] != key:
        index = (index + np.uint64(1)) & mask
    return index


@exact_kernel
def _add_hashed(keys, entries, done, used, most, tokens, n_columns):  # type: ignore[no-untyped-def]
    """Add tokens from the `done`-th on, until more than `most` entries might be used. Returns how many are done, and entries used."""
    order, row, weight = tokens.order, tokens.row, tokens.weight
    ptr, column, activation = tokens.active.ptr, tokens.active.unit, tokens.active.activation
    for o in range(done, len(order)):
        t = order[o]
        if used + (ptr[t + 1] - ptr[t]) > most:
            return o, used
        first_key = row[o] * n_columns
        w = np.float64(weight[t])
        for i in range(ptr[t], ptr[t + 1]):
            key = first_key + column[i]
            index = _entry(keys, key)
            if keys[index, np.uint64(0)] == FREE:
                keys[index, np.uint64(0)] = key
                used += 1
            a = np.float64(activation[i])
            entries[index, np.uint64(1)] += a * w
            entries[index, np.uint64(2)] += a
            entries[index, np.uint64(3)] += 1.0
    return len(order), used


@exact_kernel
def _rehash(old_keys, old, keys, entries):  # type: ignore[no-untyped-def]
    """Put all pairs of a table into a larger one."""
    for i in range(len(old_keys)):
        if old_keys[i, 0] != FREE:
            index = _entry(keys, old_keys[i, 0])
            keys[index, 0] = old_keys[i, 0]
            for column in range(1, 4):
                entries[index, column] = old[i, column]
