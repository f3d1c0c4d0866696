"""Gene sets, token by token: scores of held-out genes in held-out items, and the thresholds that they give.

A gene set is a concept of genes. What has it or lacks it is a token: of a member, or of a gene matched for expression. Thresholds are chosen on one half
of the held-out genes in one half of the held-out items, and measured on the other half of the genes in the other half of the items: neither a gene
nor a group of items is in both. A gene counts once; its tokens are no replicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.concepts.choosing import TEST, UNUSED, VALIDATION, Scored
from sae_genomics.concepts.concept import UNCOUNTED, Concept, NamedConcepts

LEAST_GENES = 2  # of the set, and of the others, that each half needs
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GeneTokens:
    """Tokens of held-out genes as the gene sets that they can tell of score them. concept: number of the concept, item: row of the run's
    items, unit: row of units.parquet: int64 [n]. score: float32 [n]. is_member: bool [n]."""

    concept: Int64
    item: Int64
    unit: Int64
    score: npt.NDArray[np.float32]
    is_member: Bool

    @staticmethod
    def joined(parts: Iterable[GeneTokens]) -> GeneTokens:
        """Of all parts, in their order."""
        empty = np.zeros(0, np.int64)
        every = [GeneTokens(empty, empty, empty, np.zeros(0, np.float32), np.zeros(0, bool)), *parts]
        return GeneTokens(
            *(np.concatenate([getattr(each, name) for each in every]) for name in ("concept", "item", "unit", "score", "is_member"))
        )  # fmt: skip

    def of(self, concept: int) -> GeneTokens:
        """The tokens of one concept."""
        rows = self.concept == concept
        return GeneTokens(*(getattr(self, name)[rows] for name in ("concept", "item", "unit", "score", "is_member")))


@dataclass(frozen=True)
class SetTable:
    """numbers: int64 [sets], of the concepts that are gene sets. truth: int8 [units, sets]: 1 member, 0 other, -1 for nothing."""

    numbers: Int64
    truth: npt.NDArray[np.int8]

    @staticmethod
    def of(concepts: Sequence[Concept], wanted: Bool) -> SetTable:
        """wanted: bool [units], those that may tell."""
        numbers = np.array([number for number, each in enumerate(concepts) if each.kind == "gene_set"], np.int64)
        truth = np.full((len(wanted), len(numbers)), UNCOUNTED, np.int8)
        for column, number in enumerate(numbers):
            truth[:, column] = np.where(wanted, concepts[number].unit_truth(len(wanted)), UNCOUNTED)
        return SetTable(numbers, truth)

    def tokens(
        self, scores: npt.NDArray[np.float32], item: Int64, unit: npt.NDArray[np.integer], chosen: Int64
    ) -> GeneTokens:
        """scores: [T, concepts]. item, unit: [T]. chosen: items whose tokens are taken, ascending."""
        if not len(self.numbers):
            return GeneTokens.joined(())
        rows = np.flatnonzero((self.truth != UNCOUNTED).any(axis=1)[unit] & np.isin(item, chosen))
        truth = self.truth[unit[rows]]
        token, column = np.nonzero(truth != UNCOUNTED)
        row, concept = rows[token], self.numbers[column]
        return GeneTokens(
            concept, item[row], unit[row].astype(np.int64), scores[row, concept], truth[token, column] == 1
        )


def heldout_items(named: NamedConcepts) -> Bool:
    """Items in which gene sets are scored: bool [items]."""
    return named.heldout if named.heldout.any() else named.heldout_alone


def gene_halves(tokens: GeneTokens, group: Int64, random: np.random.Generator) -> npt.NDArray[np.int8] | None:
    """VALIDATION, TEST or UNUSED for each token of one gene set: int8 [n]; None where a half has too few genes.

    Of members and of others every second gene in a random order is in a half, and so is every second group of items. A token is used where its gene
    and its item are in the same half. group: int64 [items of the run].
    """
    genes, first, gene = np.unique(tokens.unit, return_index=True, return_inverse=True)
    half = np.empty(len(genes), np.int8)
    is_member = tokens.is_member[first]
    for side in (True, False):
        mine = random.permutation(np.flatnonzero(is_member == side))
        half[mine] = np.where(np.arange(len(mine)) % 2 == 0, VALIDATION, TEST)
    groups, of_item = np.unique(group[tokens.item], return_inverse=True)
    order = random.permutation(len(groups))
    half_of_group = np.empty(len(groups), np.int8)
    half_of_group[order] = np.where(np.arange(len(groups)) % 2 == 0, VALIDATION, TEST)
    of_gene, of_group = half[gene.reshape(-1)], half_of_group[of_item.reshape(-1)]
    used = np.where(of_gene == of_group, of_gene, UNUSED).astype(np.int8)
    for each in (VALIDATION, TEST):
        for side in (True, False):
            if len(np.unique(tokens.unit[(used == each) & (tokens.is_member == side)])) < LEAST_GENES:
                return None
    return used


def as_scored(tokens: GeneTokens) -> Scored:
    """The tokens of one gene set as thresholds see them: one column, each gene a group.

    Tokens of one gene resemble each other, and so do those of one item: intervals are the wider of those over genes and those over groups of items
    (`choosing.measure_by_both`).
    """
    gene = np.unique(tokens.unit, return_inverse=True)[1].reshape(-1)
    return Scored(tokens.score[:, None], tokens.is_member[:, None], np.ones((len(gene), 1), bool), gene)
