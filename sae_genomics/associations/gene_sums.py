"""Sums per (feature, gene) pair over any number of tokens, in memory bounded by the pairs that occur.

For each pair three float64 sums are kept side by side, so that an update touches one or two cache lines:

    column 0   sum of activation x expression
    column 1   sum of activation
    column 2   number of tokens with activation > 0

Genes with the most tokens have a dense row of all features, as many as fit DENSE_LIMIT (all of them in small problems);
the pairs of the others stand in open-addressing hash tables keyed by gene x d_sae + feature. A block's tokens are taken
gene by gene, so that a row stays in the cache, and genes are cut among threads, so that no two write the same pair. A
pair's sums are added in the order of its tokens whatever the block size, the number of threads and the way it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.kernels.compiled import exact_kernel, inner

DENSE_LIMIT = 2 << 30
_FIRST_CAPACITY = 1 << 16
_MAX_LOAD = 0.6
_EMPTY = -1


@dataclass(frozen=True)
class PairSums:
    """Sums of some consecutive features, one entry a pair that occurred, ascending by feature, then gene.

    first: the first of these features.
    ptr: int64 [features + 1]; entries of feature first + i are ptr[i] to ptr[i + 1].
    unit: int32 [n].
    activation_weight, activation: float64 [n].
    n_active: int64 [n].
    """

    first: int
    ptr: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int32]
    activation_weight: npt.NDArray[np.float64]
    activation: npt.NDArray[np.float64]
    n_active: npt.NDArray[np.int64]


class GeneSums:
    """Accumulates triples into sums per (feature, gene).

    d_sae: number of features.
    n_units: number of genes.
    n_threads: how many parts the genes are cut into, one thread each.
    expected: [units], tokens of each gene, to choose dense rows by; a guess costs time, never precision.
    dense_limit: bytes of dense rows.
    """

    def __init__(
        self,
        d_sae: int,
        n_units: int,
        n_threads: int = 1,
        expected: npt.NDArray[np.integer] | None = None,
        dense_limit: int = DENSE_LIMIT,
    ):
        self.d_sae, self.n_units = d_sae, n_units
        self.tokens = np.zeros(n_units, dtype=np.int64)
        n_dense = min(n_units, dense_limit // (24 * d_sae))
        common = np.argsort(-np.asarray(expected), kind="stable") if expected is not None else np.arange(n_units)
        self._dense_units = np.sort(common[:n_dense])
        self._row = np.full(n_units, -1, dtype=np.int64)
        self._row[self._dense_units] = np.arange(n_dense)
        self._sums = np.zeros((n_dense * d_sae, 3))
        self._bounds = np.linspace(0, n_units, max(1, n_threads) + 1).astype(np.int64)
        self._tables = [_HashTable() for _ in self._bounds[1:]]

    def add(self, block: TokenBlock, triples: Triples, executor: Executor | None = None) -> None:
        """Add a block's triples; tokens with unit -1 do not count.

        executor: threads to spread the work on; None does it in this one.
        """
        gene_ptr, order = by_gene(block.unit, self.n_units)
        self.tokens += np.diff(gene_ptr)
        cuts = gene_ptr[self._bounds]
        ptr = np.concatenate([[0], np.cumsum(np.bincount(triples.token, minlength=len(block)))])
        parts = [
            (part, order[cuts[part] : cuts[part + 1]], ptr, block, triples) for part in range(len(self._bounds) - 1)
        ]
        if executor is None:
            for part in parts:
                self._add_part(*part)
        else:
            for future in [executor.submit(self._add_part, *part) for part in parts]:
                future.result()

    def _add_part(
        self,
        part: int,
        order: npt.NDArray[np.int64],
        ptr: npt.NDArray[np.int64],
        block: TokenBlock,
        triples: Triples,
    ) -> None:
        row = self._row[block.unit[order]]
        dense = row >= 0
        values = (ptr, triples.feature, triples.activation, block.weight, self.d_sae)
        _add_dense(self._sums, order[dense], row[dense], *values)
        if not dense.all():
            rest = order[~dense]
            self._tables[part].add(rest, block.unit[rest], *values)

    @property
    def n_bytes(self) -> int:
        """Memory the sums take."""
        return self._sums.nbytes + sum(table.entries.nbytes for table in self._tables)

    def by_feature(self, features_at_once: int | None = None) -> Iterator[PairSums]:
        """The sums in blocks of consecutive features. May be called again."""
        if features_at_once is None:
            features_at_once = max(1, (1 << 23) // max(self.n_units, 1))
        cube = self._sums.reshape(len(self._dense_units), self.d_sae, 3)
        entries = np.concatenate([table.used_entries() for table in self._tables])
        hashed_unit, hashed_feature = np.divmod(entries[:, 0].view(np.int64), self.d_sae)
        order = np.argsort(hashed_feature, kind="stable")
        hashed_unit, hashed_feature = hashed_unit[order], hashed_feature[order]
        for first in range(0, self.d_sae, features_at_once):
            n = min(features_at_once, self.d_sae - first)
            part = np.ascontiguousarray(cube[:, first : first + n].transpose(1, 0, 2))
            feature, row = np.nonzero(part[:, :, 2])
            start, stop = np.searchsorted(hashed_feature, [first, first + n])
            yield _pair_sums(
                first,
                n,
                np.concatenate([feature, hashed_feature[start:stop] - first]),
                np.concatenate([self._dense_units[row], hashed_unit[start:stop]]),
                np.concatenate([part[feature, row], entries[order[start:stop], 1:]]),
            )


def _pair_sums(
    first: int, n: int, feature: npt.NDArray[np.int64], unit: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> PairSums:
    order = np.lexsort((unit, feature))
    feature, unit, values = feature[order], unit[order], values[order]
    ptr = np.searchsorted(feature, np.arange(n + 1))
    return PairSums(
        first, ptr, unit.astype(np.int32), values[:, 0].copy(), values[:, 1].copy(), values[:, 2].astype(np.int64)
    )


class _HashTable:
    """Open addressing with linear probing; grows by doubling when 60 % full.

    entries: float64 [capacity, 4]: the key (an int64 in the same bytes, so that a look-up touches one cache line), then the
    three sums.
    """

    def __init__(self) -> None:
        self.entries = _empty(_FIRST_CAPACITY)
        self.used = 0

    def used_entries(self) -> npt.NDArray[np.float64]:
        return self.entries[self.entries[:, 0].view(np.int64) != _EMPTY]

    def add(self, order: npt.NDArray[np.int64], unit: npt.NDArray[np.int32], *values: Any) -> None:
        done = 0
        while done < len(order):
            room = int(len(self.entries) * _MAX_LOAD)
            keys = self.entries.view(np.int64)
            done, self.used = _add_hashed(keys, self.entries, done, self.used, room, order, unit, *values)
            if done < len(order):
                larger = _empty(2 * len(self.entries))
                _rehash(keys, self.entries, larger.view(np.int64), larger)
                self.entries = larger


def _empty(capacity: int) -> npt.NDArray[np.float64]:
    entries = np.zeros((capacity, 4))
    entries.view(np.int64)[:, 0] = _EMPTY
    return entries


@exact_kernel
def by_gene(unit, n_units):  # type: ignore[no-untyped-def]
    """Tokens gene by gene, each gene's in their order; those of gene s are order[ptr[s]] to order[ptr[s + 1]]."""
    ptr = np.zeros(n_units + 1, dtype=np.int64)
    for s in unit:
        if s >= 0:
            ptr[s + 1] += 1
    for s in range(n_units):
        ptr[s + 1] += ptr[s]
    free = ptr.copy()
    order = np.empty(ptr[n_units], dtype=np.int64)
    for t in range(len(unit)):
        s = unit[t]
        if s >= 0:
            order[free[s]] = t
            free[s] += 1
    return ptr, order


@exact_kernel
def _add_dense(sums, order, row, ptr, feature, activation, expression, d_sae):  # type: ignore[no-untyped-def]
    # unsigned places: without Python's rule for negative ones this takes two thirds of the time
    width = np.uint64(d_sae)
    for o in range(len(order)):
        t = order[o]
        start = np.uint64(row[o]) * width
        e = np.float64(expression[t])
        for i in range(np.uint64(ptr[t]), np.uint64(ptr[t + 1])):
            pair = start + np.uint64(feature[i])
            a = np.float64(activation[i])
            sums[pair, np.uint64(0)] += a * e
            sums[pair, np.uint64(1)] += a
            sums[pair, np.uint64(2)] += 1.0


@inner
def _place(keys, key):  # type: ignore[no-untyped-def]
    """Where the key stands, or the free place where it belongs."""
    mask = np.uint64(len(keys) - 1)
    mixed = np.uint64(key) * np.uint64(11400714819323198485)  # Fibonacci hashing: 2^64 / golden ratio, odd
    place = (mixed >> np.uint64(32)) & mask
    while keys[place, np.uint64(0)] != _EMPTY and keys[place, np.uint64(0)] != key:
        place = (place + np.uint64(1)) & mask
    return place


@exact_kernel
def _add_hashed(  # type: ignore[no-untyped-def]
    keys, entries, done, used, room, order, unit, ptr, feature, activation, expression, d_sae
):
    """Add tokens from the `done`-th on, until the table might overflow. Returns how many are done, and keys used."""
    for o in range(done, len(order)):
        t = order[o]
        if used + (ptr[t + 1] - ptr[t]) > room:
            return o, used
        first_key = np.int64(unit[o]) * d_sae
        e = np.float64(expression[t])
        for i in range(ptr[t], ptr[t + 1]):
            key = first_key + feature[i]
            place = _place(keys, key)
            if keys[place, np.uint64(0)] == _EMPTY:
                keys[place, np.uint64(0)] = key
                used += 1
            a = np.float64(activation[i])
            entries[place, np.uint64(1)] += a * e
            entries[place, np.uint64(2)] += a
            entries[place, np.uint64(3)] += 1.0
    return len(order), used


@exact_kernel
def _rehash(old_keys, old, keys, entries):  # type: ignore[no-untyped-def]
    for i in range(len(old_keys)):
        if old_keys[i, 0] != _EMPTY:
            place = _place(keys, old_keys[i, 0])
            keys[place, 0] = old_keys[i, 0]
            for column in range(1, 4):
                entries[place, column] = old[i, column]
