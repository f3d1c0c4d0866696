"""How many genes lists and sets share: how often each number occurs, and which pairs deserve a row.

Overlaps are the entries of the product of both membership matrices, made for a block of lists at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.kernels.arrays import Ints, Members, OverlapKinds, PairCells

PAIRS_AT_ONCE = 1 << 20


def overlap_kinds(lists: Members, sets: Members, cells: PairCells) -> OverlapKinds:
    """Count the pairs that share a gene, by cell and number of shared genes.

    lists: rows are lists, columns genes. sets: rows are genes, columns sets.
    """
    n_cells = cells.n_classes * cells.n_sizes
    most = np.zeros(n_cells, dtype=np.int64)
    for row, term, k in _shared(lists, sets, len(cells.source)):
        np.maximum.at(most, _cell(cells, row, term), k)
    start = np.concatenate([[0], np.cumsum(most)])
    count = np.zeros(start[-1], dtype=np.int64)
    for row, term, k in _shared(lists, sets, len(cells.source)):
        np.add.at(count, start[_cell(cells, row, term)] + k - 1, 1)
    return OverlapKinds(start, count)


def kept_overlaps(
    lists: Members, sets: Members, cells: PairCells, kinds: OverlapKinds, rank: Ints, n_small: int, best: int
) -> tuple[Ints, Ints, Ints]:
    """The pairs that have a row: list, set and kind, by list, then by rank, then by set.

    rank: int64 [kinds], of each kind's p, 0 for the smallest. A pair has a row when its rank is below n_small, or when it is among the
    `best` first of its list by rank, then by set.
    """
    found = []
    for row, term, k in _shared(lists, sets, len(cells.source)):
        kind = kinds.start[_cell(cells, row, term)] + k - 1
        order = np.lexsort((term, rank[kind], row))
        row, term, kind = row[order], term[order], kind[order]
        first = np.searchsorted(row, row)
        kept = (rank[kind] < n_small) | (np.arange(len(row)) - first < best)
        found.append((row[kept], term[kept], kind[kept]))
    if not found:
        return (np.empty(0, dtype=np.int64),) * 3
    row, term, kind = (np.concatenate(each) for each in zip(*found, strict=True))
    return row, term, kind


def _cell(cells: PairCells, row: Ints, term: Ints) -> Ints:
    return cells.list_class[row, cells.source[term]] * cells.n_sizes + cells.size[term]


def _shared(lists: Members, sets: Members, n_terms: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """List, set and number of shared genes of every pair that shares one; int64 [pairs of a block of lists]."""
    n_lists, n_genes = len(lists.ptr) - 1, len(sets.ptr) - 1
    left, right = _matrix(lists, n_genes), _matrix(sets, n_terms)
    step = max(1, PAIRS_AT_ONCE // max(n_terms, 1))
    for start in range(0, n_lists, step):
        overlap = (left[start : start + step] @ right).tocoo()
        yield start + overlap.row.astype(np.int64), overlap.col.astype(np.int64), overlap.data.astype(np.int64)


def _matrix(rows: Members, n_columns: int) -> sparse.csr_matrix:
    ones: npt.NDArray[np.int32] = np.ones(len(rows.column), dtype=np.int32)
    return sparse.csr_matrix((ones, rows.column, rows.ptr), shape=(len(rows.ptr) - 1, n_columns))
