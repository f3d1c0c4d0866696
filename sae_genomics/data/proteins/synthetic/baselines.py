"""What can be said of a hidden residue without a model: from residue frequencies, and from its two neighbours.

The neighbours' prediction goes back from counts of three residues in a row to pairs, from pairs to single residues:

    P(x)        = (n(x) + 1) / (n + 20)
    P(x | l)    = (n(l, x) + a P(x)) / (n(l) + a)                           likewise P(x | r)
    Q(x | l, r) ~ P(x | l) P(x | r) / P(x)
    P(x | l, r) = (n(l, x, r) + a Q(x | l, r)) / (n(l, r) + a)

A neighbour that is hidden itself, or that is no residue, is left out. Of several values of `a` the one with the least loss is
reported: no choice is better for this baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SMOOTHING = (10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class Counts:
    """How often residues occur in the training proteins: one [n], (left, x) and (x, right) pairs [n, n], (left, x, right) [n, n, n]."""

    one: npt.NDArray[np.float64]
    pair: npt.NDArray[np.float64]
    triple: npt.NDArray[np.float64]

    @classmethod
    def of(cls, sequences: list[npt.NDArray[np.int64]], n: int) -> Counts:
        """sequences: residue numbers 0 to n - 1; others break the row."""
        row = np.concatenate([np.append(sequence, -1) for sequence in sequences])
        row = np.where((row >= 0) & (row < n), row, -1)
        one = np.bincount(row[row >= 0], minlength=n).astype(np.float64)
        left, x = row[:-1], row[1:]
        both = (left >= 0) & (x >= 0)
        pair = np.bincount(left[both] * n + x[both], minlength=n * n).reshape(n, n)
        left, x, right = row[:-2], row[1:-1], row[2:]
        three = (left >= 0) & (x >= 0) & (right >= 0)
        triple = np.bincount((left[three] * n + x[three]) * n + right[three], minlength=n**3).reshape(n, n, n)
        return cls(one, pair.astype(np.float64), triple.astype(np.float64))


def neighbour_loss(
    counts: Counts, rows: npt.NDArray[np.int64], hidden: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Cross-entropy of each hidden residue, in nats: [2, hidden]: by frequency, and by its neighbours at the best smoothing for all.

    rows: [sequences, positions], residue numbers; others (special tokens) count as unknown.
    """
    losses = np.stack([_loss(counts, rows, hidden, smoothing) for smoothing in SMOOTHING])
    frequency = -np.log(_frequency(counts)[rows[hidden]])
    return np.stack([frequency, losses[losses.mean(axis=1).argmin()]])


def _frequency(counts: Counts) -> npt.NDArray[np.float64]:
    return (counts.one + 1) / (counts.one.sum() + len(counts.one))


def _loss(
    counts: Counts, rows: npt.NDArray[np.int64], hidden: npt.NDArray[np.bool_], smoothing: float
) -> npt.NDArray[np.float64]:
    n = len(counts.one)
    single = _frequency(counts)
    # row n of each table: the neighbour is unknown
    after = _smoothed(counts.pair, single, smoothing)
    before = _smoothed(counts.pair.T, single, smoothing)
    both = after[:, None] * before[None] / single
    both /= both.sum(axis=2, keepdims=True)
    triples = counts.triple.transpose(0, 2, 1)
    known = triples + smoothing * both[:n, :n]
    both[:n, :n] = known / known.sum(axis=2, keepdims=True)
    visible = np.where(hidden | (rows < 0) | (rows >= n), n, rows)
    visible = np.pad(visible, ((0, 0), (1, 1)), constant_values=n)
    left, right = visible[:, :-2][hidden], visible[:, 2:][hidden]
    return -np.log(both[left, right, rows[hidden]])


def _smoothed(
    pair: npt.NDArray[np.float64], single: npt.NDArray[np.float64], smoothing: float
) -> npt.NDArray[np.float64]:
    """Chances of x after each residue, and (last row) after an unknown one: [n + 1, n]."""
    smooth = pair + smoothing * single
    return np.vstack([smooth / smooth.sum(axis=1, keepdims=True), single])
