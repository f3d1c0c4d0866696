"""Each cell's maximum and mean activation of each feature, and each feature's own totals, from a block's triples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.kernels.arrays import FeatureSums, ItemRows
from sae_genomics.kernels.item_sums import add_items


class FeatureTotals:
    """What one feature adds up to over gene tokens of all cells.

    sums: of each feature. tokens, heldout_tokens: gene tokens seen; such tokens of held-out cells.
    """

    def __init__(self, d_sae: int):
        self.d_sae = d_sae
        self.sums = FeatureSums.zeros(d_sae)
        self.tokens = 0
        self.heldout_tokens = 0

    def add(self, block: TokenBlock, triples: Triples) -> ItemRows:
        """Count a block of whole cells and return their rows. Tokens with unit -1 do not count."""
        counted = block.unit >= 0
        self.tokens += int(counted.sum())
        self.heldout_tokens += int(counted[np.repeat(block.heldout, np.diff(block.item_ptr))].sum())
        return add_items(self.sums, block.item_ptr, block.heldout, counted, triples.by_token(len(block)))

    def table(self) -> pd.DataFrame:
        """The first columns of features.parquet."""
        sums = self.sums
        with np.errstate(divide="ignore", invalid="ignore"):
            return pd.DataFrame(
                {
                    "feature": np.arange(self.d_sae, dtype=np.int32),
                    "firing_rate": sums.n_active / max(self.tokens, 1),
                    "n_tokens": sums.n_active,
                    "n_cells": sums.n_items,
                    "mean_activation": np.where(sums.n_active > 0, sums.activation / sums.n_active, 0.0),
                    "max_activation": sums.maximum.astype(np.float64),
                    "heldout_firing_rate": sums.heldout_active / np.float64(self.heldout_tokens),
                }
            )


def add_sampled(store: ColumnStore, rows: ItemRows, sample_row: npt.NDArray[np.int64]) -> None:
    """Put the sampled cells' maxima into the store. sample_row: int64 [cells of rows], -1 for cells outside the sample."""
    entry_row = np.repeat(sample_row, np.diff(rows.ptr))
    in_sample = entry_row >= 0
    store.add(entry_row[in_sample], rows.feature[in_sample], rows.maximum[in_sample])
