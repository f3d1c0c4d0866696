"""Tests of how many genes a list and a set share, for all lists and all sets.

A test of overlaps is a function of four numbers, so it is computed once for each different (k, K, n, N): a few hundred thousand stand behind
a hundred million tests. Pairs are counted by kind first, which is all that the false discovery rate needs. Then only the pairs that have
a row are made, so memory does not grow with lists x sets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sae_genomics.kernels.arrays import Members, OverlapKinds, PairCells
from sae_genomics.kernels.overlaps import kept_overlaps, overlap_kinds
from sae_genomics.validation.enrichment import Counts, Enrichment, Floats, Keep, Sets, false_discovery
from sae_genomics.validation.gene_lists import GeneLists

Tail = Callable[[Counts, Counts, Counts, Counts], Floats]


def of_overlaps(lists: GeneLists, sets: Sets, keep: Keep, tail: Tail) -> Enrichment:
    """Test every list against every set by the number of genes that they share.

    keep: only tests that share a gene can have a row; of equal p the set that comes first.
    tail: (k, K, n, N) -> p, elementwise; all int64 [tests].
    """
    n_lists, n_terms, n_sources = len(lists.unit), len(sets.source), sets.universe.shape[1]
    size, n_top, named = sets.sizes, sizes_in_sources(lists, sets), sets.universe.sum(axis=0)
    sizes, size_number = np.unique(size, return_inverse=True)
    classes, list_class = np.unique(n_top * n_sources + np.arange(n_sources), return_inverse=True)
    cells = PairCells(sets.source, size_number, list_class.reshape(n_top.shape), len(sizes), len(classes))
    listed, members = Members.of(lists.matrix), Members.of(sets.matrix)
    found = overlap_kinds(listed, members, cells)

    occurs = np.flatnonzero(found.n_pairs)
    k, cell = _of_kinds(found, occurs)
    (n, source), big_k = np.divmod(classes[cell // len(sizes)], n_sources), sizes[cell % len(sizes)]
    p = tail(k, big_k, n, named[source])
    q, q_source = false_discovery(p, source, sets.source, n_lists, found.n_pairs[occurs])

    rank, position = np.zeros((2, len(found.n_pairs)), dtype=np.int64)
    distinct, rank[occurs] = np.unique(p, return_inverse=True)
    position[occurs] = np.arange(len(occurs))
    n_small = int(np.searchsorted(distinct, keep.p, side="right"))
    row, term, kind = kept_overlaps(listed, members, cells, found, rank, n_small, keep.best)
    at = position[kind]
    return Enrichment(
        row=row,
        term=term,
        n_overlap=k[at],
        n_term=size[term],
        n_top=n[at],
        n_background=named[source[at]],
        p_value=p[at],
        q_value=q[at],
        q_source=q_source[at],
        n_tests=n_lists * n_terms,
    )


def _of_kinds(found: OverlapKinds, kinds: Counts) -> tuple[Counts, Counts]:
    """Shared genes and cell of some kinds: int64 [kinds] each."""
    cell = np.searchsorted(found.start, kinds, side="right") - 1
    return kinds - found.start[cell] + 1, cell


def sizes_in_sources(lists: GeneLists, sets: Sets) -> Counts:
    """n, the genes of each list that each source could have named: int64 [lists, sources]."""
    found: Counts = np.asarray(lists.matrix @ sets.universe.astype(np.int64), dtype=np.int64)
    return found
