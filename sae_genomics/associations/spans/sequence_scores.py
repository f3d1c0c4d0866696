"""Baselines that need no model: what amino acids around a residue, or its position in the protein, say of a concept.

Both are fitted on the residues of the choosing half, by sums over tokens alone. There is one score per concept, and its positive part goes
through the same thresholds and halves as a feature.

composition: x = (which unit the residue is; shares of units within WINDOW residues to either side). The score is Fisher's linear
discriminant, w . x - w . (m1 + m0) / 2 with w = (S + ridge)^-1 (m1 - m0): m1, m0 are the means inside and outside the concept and S is the
covariance over all residues. It is what a logistic regression becomes when both sides have the same covariance.

position: log of (share of the concept's residues / share of all residues) in each of N_BINS equal parts of the protein, one added to
each count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.associations.spans.halves import CHOOSE
from sae_genomics.associations.spans.segments import Concepts, SpanBlock
from sae_genomics.associations.triples import TokenBlock
from sae_genomics.kernels.arrays import Active

WINDOW = 7
N_BINS = 20
_RIDGE = 1e-3

Floats = npt.NDArray[np.float64]


def composition(unit: npt.NDArray[np.integer], block: SpanBlock, n_units: int) -> Floats:
    """x of the module's text: float64 [rows, 2 x units]. unit: int [rows], of the counted rows."""
    n = len(unit)
    which = np.zeros((n, n_units))
    which[np.arange(n), unit] = 1.0
    before = np.concatenate([np.zeros((1, n_units)), np.cumsum(which, axis=0)])
    row = np.arange(n)
    low, high = np.maximum(block.item_start, row - WINDOW), np.minimum(block.item_stop, row + WINDOW + 1)
    shares = (before[high] - before[low]) / (high - low)[:, None]
    return np.concatenate([which, shares], axis=1)


def part_of_item(block: SpanBlock) -> npt.NDArray[np.int64]:
    """Which part of its item each row is in: int64 [rows], 0 to N_BINS - 1."""
    last = block.position[block.item_stop - 1] if len(block) else block.position
    return np.minimum((block.position - 1) * N_BINS // np.maximum(last, 1), N_BINS - 1)


@dataclass(frozen=True)
class SequenceScores:
    """Fitted scores. weights: [2 x units, concepts]; offset: [concepts]; parts: [N_BINS, concepts]."""

    weights: Floats
    offset: Floats
    parts: Floats

    def composition(self, unit: npt.NDArray[np.integer], block: SpanBlock) -> Active:
        """The scores of a block's rows. unit: int [rows], of the counted rows."""
        return _active(composition(unit, block, len(self.weights) // 2) @ self.weights + self.offset)

    def position(self, block: SpanBlock) -> Active:
        """Likewise, of the position alone."""
        return _active(self.parts[part_of_item(block)])


def _active(scores: Floats) -> Active:
    values = scores.astype(np.float32)
    row, column = np.nonzero(values > 0)
    ptr = np.searchsorted(row, np.arange(len(values) + 1)).astype(np.int64)
    return Active(ptr, column.astype(np.int32), values[row, column])


class SequenceFit:
    """Adds up what the scores are fitted from: residues of items that choose."""

    def __init__(self, concepts: Concepts, n_units: int):
        self.concepts, self.n_units = concepts, n_units
        width, n = 2 * n_units, len(concepts)
        self._inside, self._n_inside, self._parts = np.zeros((n, width)), np.zeros(n), np.zeros((N_BINS, n))
        # of all residues, halves by group and halves by item
        self._all, self._n_all, self._squares = np.zeros((2, width)), np.zeros(2), np.zeros((2, width, width))
        self._all_parts = np.zeros((2, N_BINS))

    def add(self, tokens: TokenBlock, block: SpanBlock) -> None:
        """Add a block of whole items."""
        if not len(block):
            return
        x, where = composition(tokens.unit[block.row], block, self.n_units), part_of_item(block)
        member = _membership(block, len(self.concepts))
        self._inside += member.T @ x
        self._n_inside += np.asarray(member.sum(axis=0)).ravel()
        bins = sparse.csr_matrix((np.ones(len(where)), (where, np.arange(len(where)))), shape=(N_BINS, len(where)))
        self._parts += (bins @ member).toarray()
        for way in range(2):
            rows = x[block.half[:, way] == CHOOSE]
            self._all[way] += rows.sum(axis=0)
            self._n_all[way] += len(rows)
            self._squares[way] += rows.T @ rows
            self._all_parts[way] += np.bincount(where[block.half[:, way] == CHOOSE], minlength=N_BINS)

    def finish(self) -> SequenceScores:
        """The scores; a concept without residues in the choosing half scores 0 everywhere."""
        n, width = len(self.concepts), 2 * self.n_units
        weights, offset, parts = np.zeros((width, n)), np.zeros(n), np.zeros((N_BINS, n))
        single = self.concepts.halves.single
        for way in range(2):
            n_all = self._n_all[way]
            fitted = np.flatnonzero((single == bool(way)) & (self._n_inside > 0) & (self._n_inside < n_all))
            if not len(fitted):
                continue
            mean = self._all[way] / n_all
            spread = self._squares[way] / n_all - np.outer(mean, mean)
            spread += _RIDGE * max(np.trace(spread) / width, 1e-12) * np.eye(width)
            n_in = self._n_inside[fitted, None]
            inside, outside = self._inside[fitted] / n_in, (self._all[way] - self._inside[fitted]) / (n_all - n_in)
            weights[:, fitted] = np.linalg.solve(spread, (inside - outside).T)
            offset[fitted] = -(weights[:, fitted] * ((inside + outside) / 2).T).sum(axis=0)
            share = (self._parts[:, fitted] + 1) / (self._n_inside[fitted] + N_BINS)
            parts[:, fitted] = np.log(share / ((self._all_parts[way] + 1) / (n_all + N_BINS))[:, None])
        return SequenceScores(weights, offset, parts)


def _membership(block: SpanBlock, n_concepts: int) -> sparse.csr_matrix:
    """Which rows are inside each concept, of items that choose for it: [rows, concepts]."""
    merged = block.merged
    choosing = merged.column % 2 == CHOOSE
    start, length = merged.start[choosing], (merged.stop - merged.start)[choosing]
    ends = np.cumsum(length)
    row = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - length, length) + np.repeat(start, length)
    column = np.repeat(merged.column[choosing] // 2, length)
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(block), n_concepts))
