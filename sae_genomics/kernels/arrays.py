"""Arrays that kernels take and give together. Named tuples, because compiled code can read these."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Active(NamedTuple):
    """Activations of tokens, as CSR rows. Those of row t are ptr[t] to ptr[t + 1]. Zeros and values below count for nothing.

    ptr: int64 [rows + 1]. unit: int32 [n], feature, neuron or direction. activation: float32 [n].
    """

    ptr: Ints
    unit: npt.NDArray[np.int32]
    activation: npt.NDArray[np.float32]


class FeatureSums(NamedTuple):
    """Sums of each feature over counted tokens: arrays [d_sae].

    n_active: int64, tokens with activation > 0. heldout_active: int64, those of held-out items. n_items: int64, items with such a token.
    activation: float64, sum. maximum: float32.
    """

    n_active: Ints
    heldout_active: Ints
    n_items: Ints
    activation: Floats
    maximum: npt.NDArray[np.float32]

    @staticmethod
    def zeros(d_sae: int) -> FeatureSums:
        """Nothing added yet."""
        counts = [np.zeros(d_sae, dtype=np.int64) for _ in range(3)]
        return FeatureSums(counts[0], counts[1], counts[2], np.zeros(d_sae), np.zeros(d_sae, dtype=np.float32))


class ItemRows(NamedTuple):
    """Consecutive items as CSR rows with two values per entry.

    ptr: int64 [items + 1]. feature: int32 [n], ascending within an item.
    maximum: float32 [n], over the item's counted tokens. mean: float32 [n], over the same tokens, zeros included.
    """

    ptr: Ints
    feature: npt.NDArray[np.int32]
    maximum: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]


class SignedTotals(NamedTuple):
    """Sums of the positive and the negative part of linear units, per group of tokens: arrays [groups, 2, units].

    activation_weight: float64, of activation x weight. activation: float64. n_active: int32, tokens with activation > 0.
    """

    activation_weight: Floats
    activation: Floats
    n_active: npt.NDArray[np.int32]

    @staticmethod
    def zeros(n_groups: int, n_units: int) -> SignedTotals:
        """Nothing added yet."""
        shape = (n_groups, 2, n_units)
        return SignedTotals(np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int32))


class RankSums(NamedTuple):
    """Sums per column and group: float64 [columns, groups]; and per column: float64 [columns].

    ranks: of midranks. values, squares: of the values and of their squares. ties: sum of t^3 - t over the column's runs of t equal values.
    """

    ranks: Floats
    values: Floats
    squares: Floats
    ties: Floats


class CountedRows(NamedTuple):
    """Rows that count for spans, by item, then position: int64 [rows] each. half: int8 [rows, 2], of the row's item by group, by item."""

    item: Ints
    position: Ints
    half: npt.NDArray[np.int8]


class Segments(NamedTuple):
    """Half-open ranges of counted rows: int64 [n] each.

    column: where their counts go. before: where the segment of the same item and concept before it ends; -1 for none.
    """

    start: Ints
    stop: Ints
    column: Ints
    before: Ints


class LevelCounts(NamedTuple):
    """Counts per unit, column and level. residues, runs, spans: int32 [units, columns, levels]; active, all_runs: int64 [units, 4, levels].

    residues, spans, active: at the highest level that is reached. runs, all_runs: at every level that is reached.
    """

    residues: npt.NDArray[np.int32]
    runs: npt.NDArray[np.int32]
    spans: npt.NDArray[np.int32]
    active: Ints
    all_runs: Ints

    @staticmethod
    def zeros(n_units: int, n_columns: int, n_levels: int) -> LevelCounts:
        """Nothing counted yet."""
        inside = [np.zeros((n_units, n_columns, n_levels), dtype=np.int32) for _ in range(3)]
        everywhere = [np.zeros((n_units, 4, n_levels), dtype=np.int64) for _ in range(2)]
        return LevelCounts(inside[0], inside[1], inside[2], everywhere[0], everywhere[1])


class Observations(NamedTuple):
    """Observations per unit and concept: [units, concepts].

    observed: int32, items where the unit is active. inside: int32, those where it is strongest inside the concept.
    share: float64, sum over the observed items of the share of their rows that are inside.
    """

    observed: npt.NDArray[np.int32]
    inside: npt.NDArray[np.int32]
    share: Floats

    @staticmethod
    def zeros(n_units: int, n_concepts: int) -> Observations:
        """Nothing observed yet."""
        shape = (n_units, n_concepts)
        return Observations(np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32), np.zeros(shape))


class ObservedItems(NamedTuple):
    """Pairs of item and concept that are observed: int64 [pairs], but ptr: int64 [pairs + 1].

    start, stop: the item's counted rows. concept: number. ptr: the pair's segments, ascending.
    """

    start: Ints
    stop: Ints
    concept: Ints
    ptr: Ints


class Populations(NamedTuple):
    """Scores that samples are drawn from, in strata. Those of list l and stratum b are ptr[l * strata + b] to the next entry of ptr.

    ptr: int64 [lists * strata + 1]. score: float64 [n], from the highest within a stratum. genes: float64 [n], how many have that score.
    """

    ptr: Ints
    score: Floats
    genes: Floats


class Samples(NamedTuple):
    """Samples whose sums of scores are judged.

    population: int64 [samples], the list. drawn: int64 [samples], a row of `sizes`. total: float64 [samples], the sum of scores.
    sizes: int64 [kinds, strata], genes drawn from each stratum.
    """

    population: Ints
    drawn: Ints
    total: Floats
    sizes: Ints


class Strata(NamedTuple):
    """Genes per bin, of lists and sets and of the background that each source of sets has.

    source: int64 [terms], the term's source. named: int64 [sources, bins], genes of the background. members: int32 [terms, bins], of the set.
    listed: int32 [lists, sources, bins], of the list within the source's background.
    """

    source: Ints
    named: Ints
    members: npt.NDArray[np.int32]
    listed: npt.NDArray[np.int32]


class Members(NamedTuple):
    """CSR rows of which only the pattern counts: columns of row i are column[ptr[i] : ptr[i + 1]]. ptr: int64 [rows + 1]. column: int32 [n]."""

    ptr: Ints
    column: npt.NDArray[np.int32]

    @staticmethod
    def of(matrix: sparse.csr_matrix) -> Members:
        """The pattern of a matrix."""
        return Members(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32))


class PairCells(NamedTuple):
    """What a pair of a list and a set has besides the genes that they share: its cell is list_class[list, source[set]] * n_sizes + size[set].

    source: int64 [sets]. size: int64 [sets], number of the set's size, from 0 to n_sizes - 1.
    list_class: int64 [lists, sources], number of the list's size within a source. n_classes: of these.
    """

    source: Ints
    size: Ints
    list_class: Ints
    n_sizes: int
    n_classes: int


class OverlapKinds(NamedTuple):
    """Pairs counted by cell and number of shared genes. Kind start[cell] + k - 1 has those of the cell with k shared genes.

    start: int64 [cells + 1]. n_pairs: int64 [kinds], zero for a kind that no pair is of.
    """

    start: Ints
    n_pairs: Ints


class Drawing(NamedTuple):
    """Lists of genes, the bins that their genes are drawn from, and a network.

    list_ptr: int64 [lists + 1]. gene: int64, genes of the lists, different ones within a list. key: int64 [lists], tells lists' random
    numbers apart. bins: int64 [genes], from 0. bin_ptr: int64 [bins + 1]. bin_gene: int64 [genes], by bin.
    pair_ptr: int64 [genes + 1]. partner: int64 [pairs], each pair once, never a gene with itself. degree: int64 [genes], partners.
    """

    list_ptr: Ints
    gene: Ints
    key: Ints
    bins: Ints
    bin_ptr: Ints
    bin_gene: Ints
    pair_ptr: Ints
    partner: Ints
    degree: Ints


class Moments(NamedTuple):
    """Of each feature over all tokens, zeros included: float64 [features]. sd: of the population; 0 where it never varies."""

    mean: Floats
    sd: Floats


class Pairs(NamedTuple):
    """Pairs of columns of two tables, row by row: ptr of consecutive columns of the first table, from `row` on."""

    row: int
    ptr: npt.NDArray[np.int64]
    """[rows + 1], from 0"""
    column: npt.NDArray[np.int32]
    """[pairs], of the second table"""
    expected: npt.NDArray[np.float32]
    """[pairs]"""
    less: npt.NDArray[np.int32]
    """[pairs], items that have both and do not count; empty: none"""
