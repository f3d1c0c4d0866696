"""Tests of how many genes a list and a set share, for all lists and all sets.

Overlaps come from sparse products over blocks of lists, so that memory does not grow with lists x sets. A test of overlaps is a function
of four numbers, so it is computed once for each different (k, K, n, N) of a block and not once per list and set.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sae_genomics.validation.enrichment import Counts, Enrichment, Floats, Keep, Sets, false_discovery
from sae_genomics.validation.gene_lists import GeneLists

Tail = Callable[[Counts, Counts, Counts, Counts], Floats]

PAIRS_AT_ONCE = 1 << 21


def of_overlaps(lists: GeneLists, sets: Sets, keep: Keep, tail: Tail) -> Enrichment:
    """Test every list against every set by the number of genes that they share.

    keep: only tests that share a gene can have a row.
    tail: (k, K, n, N) -> p, elementwise; all int64 [tests].
    """
    n_lists, n_terms = len(lists.unit), len(sets.source)
    n_top, size, named = sizes_in_sources(lists, sets), sets.sizes, sets.universe.sum(axis=0)
    kinds: list[tuple[Floats, Counts, Counts]] = []
    rows: list[tuple[Counts, ...]] = []
    n_kinds = 0
    step = max(1, PAIRS_AT_ONCE // max(n_terms, 1))
    for start in range(0, n_lists, step):
        overlap = (lists.matrix[start : start + step] @ sets.matrix).tocsr()
        row, term = np.repeat(np.arange(overlap.shape[0]), np.diff(overlap.indptr)), overlap.indices
        source = sets.source[term]
        numbers = overlap.data.astype(np.int64), size[term], n_top[start + row, source]
        example, kind = _kinds(*numbers, source)
        k, big_k, n = (each[example] for each in numbers)
        p = tail(k, big_k, n, named[source[example]])
        kept = worth_a_row(row, kind, term, p, overlap.shape, keep)
        kinds.append((p, source[example], np.bincount(kind, minlength=len(example))))
        rows.append(
            (start + row[kept], term[kept].astype(np.int64), n_kinds + kind[kept], *(each[kept] for each in numbers))
        )
        n_kinds += len(example)
    return _together(kinds, rows, sets, named, n_lists)


def _together(
    kinds: list[tuple[Floats, Counts, Counts]], rows: list[tuple[Counts, ...]], sets: Sets, named: Counts, n_lists: int
) -> Enrichment:
    if not rows:
        none, no_p = np.empty(0, dtype=np.int64), np.empty(0)
        return Enrichment(none, none, none, none, none, none, no_p, no_p, no_p, 0)
    p, source, count = (np.concatenate(each) for each in zip(*kinds, strict=True))
    q, q_source = false_discovery(p, source, sets.source, n_lists, count)
    row, term, kind, k, big_k, n = (np.concatenate(each) for each in zip(*rows, strict=True))
    n_background = named[sets.source[term]]
    return Enrichment(
        row, term, k, big_k, n, n_background, p[kind], q[kind], q_source[kind], n_lists * len(sets.source)
    )


def sizes_in_sources(lists: GeneLists, sets: Sets) -> Counts:
    """n, the genes of each list that each source could have named: int64 [lists, sources]."""
    found: Counts = np.asarray(lists.matrix @ sets.universe.astype(np.int64), dtype=np.int64)
    return found


def worth_a_row(
    row: Counts, kind: Counts, term: npt.NDArray[np.integer], p: Floats, shape: tuple[int, int], keep: Keep
) -> npt.NDArray[np.bool_]:
    """Which pairs have a row; of equal p the term that comes first.

    row, kind, term: [pairs]. p: float64 [kinds]. shape: lists, terms.
    """
    kept = (p <= keep.p)[kind]
    n_kept = np.bincount(row, kept, shape[0])
    open_ = (n_kept < keep.best)[row] & ~kept  # a list with enough rows needs no look at the others
    pair = np.flatnonzero(open_)
    if not keep.best or not len(pair):
        return kept
    rank = np.unique(p, return_inverse=True)[1]
    order = pair[np.argsort((row[pair] * len(p) + rank[kind[pair]]) * shape[1] + term[pair], kind="stable")]
    lists, first = np.unique(row[order], return_index=True)
    place = np.arange(len(order)) - first[np.searchsorted(lists, row[order])]
    kept[order[place < keep.best - n_kept[row[order]]]] = True
    return kept


def _kinds(k: Counts, set_size: Counts, n: Counts, source: Counts) -> tuple[Counts, Counts]:
    """Different (k, K, n, source), of which a few thousand stand behind millions of tests: a test of each, and each test's kind."""
    if not len(k):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    key = ((source * (k.max() + 1) + k) * (set_size.max() + 1) + set_size) * (n.max() + 1) + n
    if key.max() > 1 << 26:
        _, some, kind = np.unique(key, return_index=True, return_inverse=True)
        return some, kind
    example = np.full(key.max() + 1, -1, dtype=np.int64)
    example[key] = np.arange(len(key))
    present = np.flatnonzero(example >= 0)
    number = np.empty(len(example), dtype=np.int64)
    number[present] = np.arange(len(present))
    return example[present], number[key]
