"""Sparse counts to tokens, and the named tuples of arrays that both versions take and give."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

UNSORTED, OUTSIDE = 1, 2

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint64]


class Counts(NamedTuple):
    """The entries of a csr matrix [cells, columns], and which of its columns have a gene."""

    data: Float32
    """[n], not negative."""
    column: npt.NDArray[np.uint32]
    """[n], ascending in each cell."""
    indptr: Int64
    """[cells + 1]."""
    gene_ids: Int32
    """[columns], vocabulary id; negative: not in the vocabulary."""


class Rules(NamedTuple):
    """What a model wants of its tokens."""

    special_ids: Int32
    """Vocabulary ids of the special tokens that each cell begins with."""
    pad_value: np.float32
    """The value of special tokens."""
    n_raw: int
    """So many first genes of a cell always stay; where values are bins, these have their count."""
    limit: int
    """Genes of a cell that fit."""
    sampling: bool
    """Whether the genes that stay are drawn; otherwise the first ones stay."""
    seed: np.uint64
    binning: bool
    """Whether a value is the bin of the gene's count; otherwise it is given."""
    levels: Float32
    """Levels of the quantiles that are the bins' edges, ascending from 0 to 1."""
    right: bool
    """Whether a count that equals an edge is above it."""


class Columns(NamedTuple):
    """The tokens of all cells, one row per token."""

    item: Int64
    token: Int32
    unit: Int32
    position: Int32
    weight: Float32
    special: npt.NDArray[np.bool_]
    value: Float32


def count_expressed(counts: Counts) -> tuple[Int64, npt.NDArray[np.uint8]]:
    """How many genes of each cell become tokens, int64 [cells], and what is wrong with a cell, uint8 [cells].

    That is OUTSIDE where a column is not there, else UNSORTED where columns do not ascend, else 0. A cell with a fault has no tokens.
    """
    cell = _cell_of_entry(np.diff(counts.indptr))
    column = counts.column[counts.indptr[0] : counts.indptr[-1]].astype(np.int64)
    faults = np.zeros(len(counts.indptr) - 1, dtype=np.uint8)
    faults[cell[1:][(np.diff(column) < 0) & (np.diff(cell) == 0)]] = UNSORTED
    faults[cell[column >= len(counts.gene_ids)]] = OUTSIDE
    expressed = _is_expressed(counts) & (faults[cell] == 0)
    return np.bincount(cell[expressed], minlength=len(faults)), faults


def write_tokens(counts: Counts, given: Float32, rows: Int64, lengths: Int64, rules: Rules) -> tuple[Int64, Columns]:
    """The special tokens of each cell, then its expressed genes in column order.

    given: float32 [n], the values where not `binning`. rows: int64 [cells], items. lengths: int64 [cells], as counted.
    Returns where the tokens of each cell begin, int64 [cells + 1], and the tokens.

    A gene's bin is the number of edges below its count, plus 1; the edges are quantiles of the cell's own counts. If a cell has more
    genes than fit, those with the smallest pseudo-random numbers stay, which depend on seed, item and gene alone.
    """
    expressed = _is_expressed(counts)
    unit = counts.column[counts.indptr[0] : counts.indptr[-1]][expressed].astype(np.int32)
    token = counts.gene_ids[unit]
    weight, value = (
        x[counts.indptr[0] : counts.indptr[-1]][expressed]
        for x in (counts.data, counts.data if rules.binning else given)
    )
    cell, ptr = _cell_of_entry(lengths), _pointers(lengths)
    index = np.arange(len(cell)) - ptr[cell]  # of a gene in its cell
    if rules.binning:
        for start, stop in pairwise(ptr.tolist()):
            value[start + rules.n_raw : stop] = _bins(weight[start + rules.n_raw : stop], rules)

    number = np.zeros(len(cell), dtype=np.uint64)
    if rules.sampling:
        mixed = mix(mix(mix(rules.seed) ^ rows[cell].astype(np.uint64)) ^ token.astype(np.uint64))
        number = np.where(index < rules.n_raw, 0, np.maximum(mixed >> np.uint64(33), 1))
    rank = np.empty(len(cell), dtype=np.int64)
    rank[np.lexsort((index, number, cell))] = index
    stays = rank < rules.limit

    n_special = len(rules.special_ids)
    stored = np.minimum(lengths, rules.limit) + n_special
    item_ptr = _pointers(stored)
    position = np.arange(item_ptr[-1]) - np.repeat(item_ptr[:-1], stored)
    special = position < n_special
    is_gene = ~special

    def column(of_special: npt.ArrayLike, of_genes: npt.NDArray) -> npt.NDArray:
        rows = np.empty(len(special), dtype=of_genes.dtype)
        rows[special], rows[is_gene] = of_special, of_genes[stays]
        return rows

    ids = np.tile(rules.special_ids, len(lengths))
    columns = Columns(
        np.repeat(rows, stored), column(ids, token), column(-1, unit), position.astype(np.int32), column(0, weight), special,
        column(rules.pad_value, value),
    )  # fmt: skip
    return item_ptr, columns


def _is_expressed(counts: Counts) -> npt.NDArray[np.bool_]:
    """Whether each entry becomes a token."""
    part = slice(counts.indptr[0], counts.indptr[-1])
    is_gene = np.append(counts.gene_ids >= 0, False)  # the last for columns that are not there
    return (counts.data[part] > 0) & is_gene[np.minimum(counts.column[part], len(counts.gene_ids))]  # type: ignore[no-any-return]


def _bins(counts: Float32, rules: Rules) -> Float32:
    if not len(counts):
        return counts
    numbers = torch.from_numpy(counts)
    edges = torch.quantile(numbers, torch.from_numpy(rules.levels))
    bins = torch.bucketize(numbers, edges, right=rules.right) + (0 if rules.right else 1)
    return bins.numpy().astype(np.float32)


def mix(x: Bits | np.uint64) -> Bits:
    """splitmix64 (Steele, Lea and Flood, 2014): add the golden gamma, then Stafford's mix 13."""
    mixed = np.atleast_1d(x) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _cell_of_entry(lengths: Int64) -> Int64:
    return np.repeat(np.arange(len(lengths)), lengths)


def _pointers(lengths: Int64) -> Int64:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
