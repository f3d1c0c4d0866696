"""How often a layer's sums met each gene, and how strongly it was expressed there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.associations.triples import TokenBlock
from sae_genomics.data.units import Units


class GeneTokens:
    """Counts stored tokens of each unit and sums their weight (expression); tokens with unit -1 do not count.

    tokens: int64 [units]. expression: float64 [units], summed token by token, so that the block size changes nothing.
    """

    def __init__(self, n_units: int):
        self.tokens: npt.NDArray[np.int64] = np.zeros(n_units, dtype=np.int64)
        self.expression: npt.NDArray[np.float64] = np.zeros(n_units)

    def add(self, block: TokenBlock) -> None:
        counted = block.unit >= 0
        self.tokens += np.bincount(block.unit[counted], minlength=len(self.tokens))
        np.add.at(self.expression, block.unit[counted], block.weight[counted].astype(np.float64))

    def table(self, units: Units, untrained: npt.NDArray[np.int64] | None) -> pd.DataFrame:
        """The rows of gene_tokens.parquet, one per unit.

        untrained: int64 [units], tokens that the untrained model read; None without it.
        """
        tokens = self.tokens
        with np.errstate(invalid="ignore"):
            mean = np.where(tokens > 0, self.expression / tokens, np.nan)
        return pd.DataFrame(
            {
                "gene_id": units.unit_id,
                "gene_symbol": units.unit_name,
                "n_tokens_stored": tokens,
                "mean_expression": mean,
                "n_tokens_untrained": pd.array([pd.NA] * len(units) if untrained is None else untrained, dtype="Int64"),
            }
        )
