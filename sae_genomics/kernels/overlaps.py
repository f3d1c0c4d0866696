"""How many genes lists and sets share: a list counts its sets in one row of numbers that stays in the cache, and nothing is stored."""

from __future__ import annotations

import numpy as np

from sae_genomics.kernels.arrays import Ints, Members, OverlapKinds, PairCells
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel, inner
from sae_genomics.kernels.plain import overlaps as plain

LISTS_AT_ONCE = 64


@instead_of(plain.overlap_kinds)
def overlap_kinds(lists: Members, sets: Members, cells: PairCells) -> OverlapKinds:
    most = np.zeros(cells.n_classes * cells.n_sizes, dtype=np.int64)
    _most_shared(lists, sets, cells, most)
    start = np.concatenate([[0], np.cumsum(most)])
    kinds = OverlapKinds(start, np.zeros(start[-1], dtype=np.int64))
    _count(lists, sets, cells, kinds)
    return kinds


@instead_of(plain.kept_overlaps)
def kept_overlaps(
    lists: Members, sets: Members, cells: PairCells, kinds: OverlapKinds, rank: Ints, n_small: int, best: int
) -> tuple[Ints, Ints, Ints]:
    n_lists = len(lists.ptr) - 1
    n_kept = np.zeros(n_lists, dtype=np.int64)

    def count(start: int, stop: int) -> None:
        _n_kept(lists, sets, cells, kinds, rank, n_small, best, n_kept, start, stop)

    each_range(n_lists, LISTS_AT_ONCE, count)
    ptr = np.concatenate([[0], np.cumsum(n_kept)])
    row, term, kind = (np.empty(ptr[-1], dtype=np.int64) for _ in range(3))

    def write(start: int, stop: int) -> None:
        _write(lists, sets, cells, kinds, rank, n_small, best, ptr, row, term, kind, start, stop)

    each_range(n_lists, LISTS_AT_ONCE, write)
    return row, term, kind


@inner
def _shared(lists, sets, i, shared, terms):  # type: ignore[no-untyped-def]
    """Add the genes that list i shares with each set. shared: int32 [sets], zeros. terms: written, the sets. Returns how many sets."""
    n = 0
    for entry in range(lists.ptr[i], lists.ptr[i + 1]):
        gene = lists.column[entry]
        for other in range(sets.ptr[gene], sets.ptr[gene + 1]):
            term = sets.column[other]
            if shared[term] == 0:
                terms[n] = term
                n += 1
            shared[term] += 1
    return n


@exact_kernel
def _most_shared(lists, sets, cells, most):  # type: ignore[no-untyped-def]
    shared, terms = np.zeros(len(cells.source), np.int32), np.empty(len(cells.source), np.int32)
    for i in range(len(lists.ptr) - 1):
        for number in range(_shared(lists, sets, i, shared, terms)):
            term = terms[number]
            cell = cells.list_class[i, cells.source[term]] * cells.n_sizes + cells.size[term]
            most[cell] = max(most[cell], shared[term])
            shared[term] = 0


@exact_kernel
def _count(lists, sets, cells, kinds):  # type: ignore[no-untyped-def]
    shared, terms = np.zeros(len(cells.source), np.int32), np.empty(len(cells.source), np.int32)
    for i in range(len(lists.ptr) - 1):
        for number in range(_shared(lists, sets, i, shared, terms)):
            term = terms[number]
            cell = cells.list_class[i, cells.source[term]] * cells.n_sizes + cells.size[term]
            kinds.n_pairs[kinds.start[cell] + shared[term] - 1] += 1
            shared[term] = 0


@exact_kernel
def _n_kept(lists, sets, cells, kinds, rank, n_small, best, n_kept, first, last):  # type: ignore[no-untyped-def]
    shared, terms = np.zeros(len(cells.source), np.int32), np.empty(len(cells.source), np.int32)
    for i in range(first, last):
        n, small = _shared(lists, sets, i, shared, terms), 0
        for number in range(n):
            term = terms[number]
            cell = cells.list_class[i, cells.source[term]] * cells.n_sizes + cells.size[term]
            small += rank[kinds.start[cell] + shared[term] - 1] < n_small
            shared[term] = 0
        n_kept[i] = max(small, min(n, best))


@exact_kernel
def _write(lists, sets, cells, kinds, rank, n_small, best, ptr, row, term, kind, first, last):  # type: ignore[no-untyped-def]
    """The pairs that stay are the first of their list by rank, then by set: as many as were counted."""
    n_terms = len(cells.source)
    shared, terms = np.zeros(n_terms, np.int32), np.empty(n_terms, np.int32)
    key, kind_of = np.empty(n_terms, np.int64), np.empty(n_terms, np.int64)
    for i in range(first, last):
        n, wanted, n_keys = _shared(lists, sets, i, shared, terms), ptr[i + 1] - ptr[i], 0
        for number in range(n):
            other = terms[number]
            cell = cells.list_class[i, cells.source[other]] * cells.n_sizes + cells.size[other]
            kind_of[other] = kinds.start[cell] + shared[other] - 1
            shared[other] = 0
            this = rank[kind_of[other]] * n_terms + other
            if wanted > best:  # then these are all of small rank, and no other
                if rank[kind_of[other]] < n_small:
                    key[n_keys] = this
                    n_keys += 1
            elif n_keys < wanted or (wanted > 0 and this < key[n_keys - 1]):
                at = min(n_keys, wanted - 1)
                while at > 0 and key[at - 1] > this:
                    key[at] = key[at - 1]
                    at -= 1
                key[at] = this
                n_keys = min(n_keys + 1, wanted)
        if wanted > best:
            key[:n_keys] = np.sort(key[:n_keys])
        for number in range(n_keys):
            other = key[number] % n_terms
            row[ptr[i] + number] = i
            term[ptr[i] + number] = other
            kind[ptr[i] + number] = kind_of[other]
