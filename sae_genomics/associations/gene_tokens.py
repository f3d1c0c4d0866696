"""How often a layer's sums met each gene, and how strongly it was expressed there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.associations.stream import Slots
from sae_genomics.associations.triples import TokenBlock


class GeneTokens:
    """Sums the expression of stored gene tokens; tokens with slot -1 do not count. `GeneSums` counts the tokens.

    expression: float64 [slots], summed token by token, so that the block size changes nothing.
    """

    def __init__(self, n_slots: int):
        self.expression: npt.NDArray[np.float64] = np.zeros(n_slots)

    def add(self, block: TokenBlock) -> None:
        counted = block.slot >= 0
        np.add.at(self.expression, block.slot[counted], block.expression[counted].astype(np.float64))

    def table(
        self, slots: Slots, tokens: npt.NDArray[np.int64], untrained: npt.NDArray[np.int64] | None
    ) -> pd.DataFrame:
        """The rows of gene_tokens.parquet, one per slot.

        tokens: int64 [slots], of `GeneSums`. untrained: those that the untrained model read; None without it.
        """
        with np.errstate(invalid="ignore"):
            mean = np.where(tokens > 0, self.expression / tokens, np.nan)
        return pd.DataFrame(
            {
                "gene_id": slots.gene_id,
                "gene_symbol": slots.gene_symbol,
                "n_tokens_stored": tokens,
                "mean_expression": mean,
                "n_tokens_untrained": pd.array([pd.NA] * len(slots) if untrained is None else untrained, dtype="Int64"),
            }
        )
