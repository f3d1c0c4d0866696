"""The layer's raw neurons by the same procedure: what there is to learn without an SAE.

A neuron's activation is standardised with its mean and standard deviation over training cells' gene tokens, and its
positive part taken, so that it is sparse-ish, non-negative and on one scale, as a feature's activation is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.gene_sums import PairSums
from sae_genomics.associations.triples import TokenBlock
from sae_genomics.compiled import exact_kernel


class Moments:
    """Mean and standard deviation of each column over rows given block by block (Chan, Golub and LeVeque 1983)."""

    def __init__(self, n_columns: int):
        self.n = 0
        self.mean = np.zeros(n_columns)
        self._squares = np.zeros(n_columns)

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """rows: float32 [n, columns]."""
        if not len(rows):
            return
        mean = rows.mean(axis=0, dtype=np.float64)
        squares = np.square(rows - mean.astype(np.float32)).sum(axis=0, dtype=np.float64)
        delta = mean - self.mean
        n = self.n + len(rows)
        self.mean += delta * (len(rows) / n)
        self._squares += squares + np.square(delta) * (self.n * len(rows) / n)
        self.n = n

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Population standard deviation."""
        return np.sqrt(self._squares / max(self.n, 1))


class NeuronSums:
    """Gene sums of the positive part of standardised activations.

    mean, std: float64 [d_model]; a column without spread never counts as active.
    n_slots: number of genes.
    """

    def __init__(self, mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64], n_slots: int):
        self.mean = mean.astype(np.float32)
        with np.errstate(divide="ignore"):
            self.inverse_std = np.where(std > 0, 1.0 / std, 0.0).astype(np.float32)
        self.tokens = np.zeros(n_slots, dtype=np.int64)
        shape = (n_slots, len(mean))
        self._activation_expression, self._activation = np.zeros(shape), np.zeros(shape)
        self._n_active = np.zeros(shape, dtype=np.int32)

    def add(self, block: TokenBlock, x: npt.NDArray[np.float32]) -> None:
        """x: float32 [T, d_model], the block's rows."""
        self.tokens += np.bincount(block.slot[block.slot >= 0], minlength=len(self.tokens))
        _add_rows(
            x, block.slot, block.expression, self.mean, self.inverse_std,
            self._activation_expression, self._activation, self._n_active,
        )  # fmt: skip

    def by_neuron(self, neurons_at_once: int | None = None) -> Iterator[PairSums]:
        """The sums in blocks of consecutive neurons, as GeneSums gives them of features."""
        n_slots, d_model = self._activation.shape
        if neurons_at_once is None:
            neurons_at_once = max(1, (1 << 22) // max(n_slots, 1))
        for first in range(0, d_model, neurons_at_once):
            columns = slice(first, min(first + neurons_at_once, d_model))
            neuron, slot = np.nonzero(self._n_active[:, columns].T)
            yield PairSums(
                first,
                np.searchsorted(neuron, np.arange(columns.stop - first + 1)),
                slot.astype(np.int32),
                self._activation_expression[:, columns].T[neuron, slot],
                self._activation[:, columns].T[neuron, slot],
                self._n_active[:, columns].T[neuron, slot].astype(np.int64),
            )


@exact_kernel
def _add_rows(x, slot, expression, mean, inverse_std, activation_expression, activation, n_active):  # type: ignore[no-untyped-def]
    n_columns = x.shape[1]
    for t in range(len(slot)):
        s = slot[t]
        if s < 0:
            continue
        e = np.float64(expression[t])
        for j in range(n_columns):
            z = (x[t, j] - mean[j]) * inverse_std[j]
            positive = np.float64(z) if z > 0 else 0.0
            activation_expression[s, j] += positive * e
            activation[s, j] += positive
            n_active[s, j] += 1 if z > 0 else 0


def cell_maxima(
    x: npt.NDArray[np.float32], block: TokenBlock, fill: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Each cell's largest activation of each neuron over its gene tokens: float32 [cells, d_model].

    fill: [d_model], what a cell without gene tokens gets.
    """
    counted = np.flatnonzero(block.slot >= 0)
    starts = np.searchsorted(counted, block.cell_ptr[:-1])
    stops = np.searchsorted(counted, block.cell_ptr[1:])
    result = np.broadcast_to(np.asarray(fill, dtype=np.float32), (block.n_cells, x.shape[1])).copy()
    occupied = stops > starts
    if occupied.any():
        rows = x if len(counted) == len(x) else x[counted]
        result[occupied] = np.maximum.reduceat(rows, starts[occupied], axis=0)
    return result
