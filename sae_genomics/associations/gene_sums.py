"""Sums per (feature, gene) pair over any number of tokens, in memory bounded by the pairs that occur.

For each pair three float64 sums are kept side by side, so that an update touches one cache line:

    column 0   sum of activation x expression
    column 1   sum of activation
    column 2   number of tokens with activation > 0

Small problems use one dense array [d_sae x genes, 3]; large ones an open-addressing hash table keyed by
feature x genes + gene. Both are cut by gene among threads, so no two threads write the same pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.compiled import compiled
from sae_genomics.associations.triples import TokenBlock, Triples

DENSE_LIMIT = 1 << 30
_FIRST_CAPACITY = 1 << 16
_MAX_LOAD = 0.6
_EMPTY = -1


@dataclass(frozen=True)
class PairSums:
    """Sums of some consecutive features, one entry a pair that occurred, ascending by feature, then gene.

    first: the first of these features.
    ptr: int64 [features + 1]; entries of feature first + i are ptr[i] to ptr[i + 1].
    slot: int32 [n].
    activation_expression, activation: float64 [n].
    n_active: int64 [n].
    """

    first: int
    ptr: npt.NDArray[np.int64]
    slot: npt.NDArray[np.int32]
    activation_expression: npt.NDArray[np.float64]
    activation: npt.NDArray[np.float64]
    n_active: npt.NDArray[np.int64]


class GeneSums:
    """Accumulates triples into sums per (feature, gene).

    d_sae: number of features.
    n_slots: number of genes.
    n_threads: how many parts the genes are cut into, one thread each.
    dense_limit: bytes up to which the dense array is used.
    """

    def __init__(self, d_sae: int, n_slots: int, n_threads: int = 1, dense_limit: int = DENSE_LIMIT):
        self.d_sae, self.n_slots, self.n_threads = d_sae, n_slots, max(1, n_threads)
        self.tokens = np.zeros(n_slots, dtype=np.int64)
        self.dense = d_sae * n_slots * 24 <= dense_limit
        if self.dense:
            self._sums = np.zeros((d_sae * n_slots, 3))
        else:
            self._tables = [_HashTable() for _ in range(self.n_threads)]

    def add(self, block: TokenBlock, triples: Triples, executor: Executor | None = None) -> None:
        """Add a block's triples; tokens with slot -1 do not count.

        executor: threads to spread the work on; None does it in this one.
        """
        counted = block.slot[block.slot >= 0]
        self.tokens += np.bincount(counted, minlength=self.n_slots)
        parts = range(self.n_threads)
        if executor is None:
            for part in parts:
                self._add_part(block, triples, part)
        else:
            for future in [executor.submit(self._add_part, block, triples, part) for part in parts]:
                future.result()

    def _add_part(self, block: TokenBlock, triples: Triples, part: int) -> None:
        arguments = (
            triples.token, triples.feature, triples.activation, block.slot, block.expression,
            self.n_slots, part, self.n_threads,
        )  # fmt: skip
        if self.dense:
            _add_dense(self._sums, *arguments)
        else:
            self._tables[part].add(arguments)

    @property
    def n_bytes(self) -> int:
        """Memory the sums take."""
        return self._sums.nbytes if self.dense else sum(table.n_bytes for table in self._tables)

    def by_feature(self, features_at_once: int | None = None) -> Iterator[PairSums]:
        """The sums in blocks of consecutive features. May be called again; hash tables are kept sorted once."""
        if features_at_once is None:
            features_at_once = max(1, (1 << 23) // max(self.n_slots, 1))
        if self.dense:
            cube = self._sums.reshape(self.d_sae, self.n_slots, 3)
            for first in range(0, self.d_sae, features_at_once):
                part = cube[first : first + features_at_once]
                row, slot = np.nonzero(part[:, :, 2])
                yield _pair_sums(first, len(part), row, slot, part[row, slot])
            return
        keys = np.concatenate([table.used_keys() for table in self._tables])
        values = np.concatenate([table.used_values() for table in self._tables])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for first in range(0, self.d_sae, features_at_once):
            n = min(features_at_once, self.d_sae - first)
            start, stop = np.searchsorted(keys, [first * self.n_slots, (first + n) * self.n_slots])
            row, slot = np.divmod(keys[start:stop], self.n_slots)
            yield _pair_sums(first, n, row - first, slot, values[order[start:stop]])


def _pair_sums(
    first: int, n: int, row: npt.NDArray[np.int64], slot: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> PairSums:
    ptr = np.searchsorted(row, np.arange(n + 1))
    return PairSums(
        first, ptr, slot.astype(np.int32), values[:, 0].copy(), values[:, 1].copy(), values[:, 2].astype(np.int64)
    )


class _HashTable:
    """Open addressing with linear probing; grows by doubling when 60 % full."""

    def __init__(self) -> None:
        self.keys = np.full(_FIRST_CAPACITY, _EMPTY, dtype=np.int64)
        self.values = np.zeros((_FIRST_CAPACITY, 3))
        self.used = 0

    @property
    def n_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def used_keys(self) -> npt.NDArray[np.int64]:
        return self.keys[self.keys != _EMPTY]

    def used_values(self) -> npt.NDArray[np.float64]:
        return self.values[self.keys != _EMPTY]

    def add(self, arguments: tuple) -> None:  # type: ignore[type-arg]
        start, n = 0, len(arguments[0])
        while start < n:
            room = int(len(self.keys) * _MAX_LOAD)
            start, self.used = _add_hashed(self.keys, self.values, start, self.used, room, *arguments)
            if start < n:
                keys, values = np.full(2 * len(self.keys), _EMPTY, dtype=np.int64), np.zeros((2 * len(self.keys), 3))
                _rehash(self.keys, self.values, keys, values)
                self.keys, self.values = keys, values


@compiled
def _add_dense(sums, token, feature, activation, slot, expression, n_slots, part, n_parts):  # type: ignore[no-untyped-def]
    for i in range(len(token)):
        t = token[i]
        s = slot[t]
        if s < 0 or (n_parts > 1 and s % n_parts != part):
            continue
        key = np.int64(feature[i]) * n_slots + s
        a = np.float64(activation[i])
        sums[key, 0] += a * expression[t]
        sums[key, 1] += a
        sums[key, 2] += 1.0


@compiled
def _place(keys, key):  # type: ignore[no-untyped-def]
    """Where the key stands, or the free place where it belongs."""
    mask = len(keys) - 1
    mixed = key * np.int64(-7046029254386353131)  # Fibonacci hashing: 2^64 / golden ratio, odd
    place = (mixed ^ (mixed >> 32)) & mask
    while keys[place] != _EMPTY and keys[place] != key:
        place = (place + 1) & mask
    return place


@compiled
def _add_hashed(  # type: ignore[no-untyped-def]
    keys, values, start, used, room, token, feature, activation, slot, expression, n_slots, part, n_parts
):
    for i in range(start, len(token)):
        t = token[i]
        s = slot[t]
        if s < 0 or (n_parts > 1 and s % n_parts != part):
            continue
        key = np.int64(feature[i]) * n_slots + s
        place = _place(keys, key)
        if keys[place] == _EMPTY:
            if used >= room:
                return i, used
            keys[place] = key
            used += 1
        a = np.float64(activation[i])
        values[place, 0] += a * expression[t]
        values[place, 1] += a
        values[place, 2] += 1.0
    return len(token), used


@compiled
def _rehash(old_keys, old_values, keys, values):  # type: ignore[no-untyped-def]
    for i in range(len(old_keys)):
        if old_keys[i] != _EMPTY:
            place = _place(keys, old_keys[i])
            keys[place] = old_keys[i]
            values[place] = old_values[i]
