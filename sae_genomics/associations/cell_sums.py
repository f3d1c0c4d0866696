"""Each cell's maximum and mean activation of each feature, and each feature's own totals, from a block's triples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.kernels.compiled import exact_kernel


@dataclass(frozen=True)
class CellRows:
    """Consecutive cells as CSR rows with two values an entry.

    ptr: int64 [cells + 1].
    feature: int32 [n], ascending within a cell.
    maximum: float32 [n], over the cell's gene tokens.
    mean: float32 [n], over the cell's gene tokens, zeros included.
    """

    ptr: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int32]
    maximum: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]


class FeatureTotals:
    """What one feature adds up to over gene tokens of all cells: arrays [d_sae].

    n_active: tokens with activation > 0; activation: their sum; maximum; n_cells: cells with such a token;
    heldout_active: such tokens of held-out cells; tokens, heldout_tokens: gene tokens seen, as numbers.
    """

    def __init__(self, d_sae: int):
        self.d_sae = d_sae
        self.n_active = np.zeros(d_sae, dtype=np.int64)
        self.heldout_active = np.zeros(d_sae, dtype=np.int64)
        self.n_cells = np.zeros(d_sae, dtype=np.int64)
        self.activation = np.zeros(d_sae)
        self.maximum = np.zeros(d_sae, dtype=np.float32)
        self.tokens = 0
        self.heldout_tokens = 0
        self._cell = np.zeros((d_sae, 4))  # one cell's count, maximum and sum of each feature; zero between cells

    def add(self, block: TokenBlock, triples: Triples) -> CellRows:
        """Count a block of whole cells and return their rows. Tokens with unit -1 do not count."""
        before = np.concatenate([[0], np.cumsum(block.unit >= 0)])
        n_tokens = np.diff(before[block.item_ptr])
        self.tokens += int(n_tokens.sum())
        self.heldout_tokens += int(n_tokens[block.heldout].sum())
        triple_ptr = np.searchsorted(triples.token, block.item_ptr)
        ptr = np.zeros(block.n_items + 1, dtype=np.int64)
        feature = np.empty(len(triples), dtype=np.int32)
        maximum, mean = np.empty(len(triples), dtype=np.float32), np.empty(len(triples), dtype=np.float32)
        _add_cells(
            triples.token, triples.feature, triples.activation, block.unit, triple_ptr, n_tokens, block.heldout,
            self._cell, ptr, feature, maximum, mean,
            self.n_active, self.heldout_active, self.n_cells, self.activation, self.maximum,
        )  # fmt: skip
        n = int(ptr[-1])
        return CellRows(ptr, feature[:n].copy(), maximum[:n].copy(), mean[:n].copy())

    def table(self) -> pd.DataFrame:
        """The first columns of features.parquet."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return pd.DataFrame(
                {
                    "feature": np.arange(self.d_sae, dtype=np.int32),
                    "firing_rate": self.n_active / max(self.tokens, 1),
                    "n_tokens": self.n_active,
                    "n_cells": self.n_cells,
                    "mean_activation": np.where(self.n_active > 0, self.activation / self.n_active, 0.0),
                    "max_activation": self.maximum.astype(np.float64),
                    "heldout_firing_rate": self.heldout_active / np.float64(self.heldout_tokens),
                }
            )


def add_sampled(store: ColumnStore, rows: CellRows, sample_row: npt.NDArray[np.int64]) -> None:
    """Put the sampled cells' maxima into the store. sample_row: int64 [cells of rows], -1 for cells outside the sample."""
    entry_row = np.repeat(sample_row, np.diff(rows.ptr))
    kept = entry_row >= 0
    store.add(entry_row[kept], rows.feature[kept], rows.maximum[kept])


@exact_kernel
def _add_cells(  # type: ignore[no-untyped-def]
    token, feature, activation, unit, triple_ptr, n_tokens, heldout,
    here, ptr, out_feature, out_maximum, out_mean,
    n_active, heldout_active, n_cells, total, maximum,
):  # fmt: skip
    n = 0
    for cell in range(len(n_tokens)):
        first = n
        for i in range(np.uint64(triple_ptr[cell]), np.uint64(triple_ptr[cell + 1])):  # unsigned: see gene_sums
            if unit[token[i]] < 0:
                continue
            f, a = np.uint64(feature[i]), np.float64(activation[i])
            out_feature[n] = feature[i]
            n += here[f, np.uint64(0)] == 0.0  # kept when it is the cell's first; a branch would be mispredicted
            here[f, np.uint64(0)] += 1.0
            here[f, np.uint64(1)] = max(here[f, np.uint64(1)], a)
            here[f, np.uint64(2)] += a
        if n - first > len(here) // 16:
            n = first  # most features are here: going through all of them is faster than sorting
            for f in range(len(here)):
                if here[f, 0] != 0.0:
                    out_feature[n] = f
                    n += 1
        else:
            out_feature[first:n].sort()
        for j in range(first, n):
            f = out_feature[j]
            count = np.int64(here[f, 0])
            out_maximum[j] = here[f, 1]
            out_mean[j] = here[f, 2] / n_tokens[cell]
            n_active[f] += count
            if heldout[cell]:
                heldout_active[f] += count
            n_cells[f] += 1
            total[f] += here[f, 2]
            maximum[f] = max(maximum[f], out_maximum[j])
            here[f, 0] = 0.0
            here[f, 1] = 0.0
            here[f, 2] = 0.0
        ptr[cell + 1] = n
