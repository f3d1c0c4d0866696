"""What ranks every gene of every unit, for the tests that read a whole ranking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.associations.gene_ranking import specificity
from sae_genomics.associations.gene_sums import PairSums


def gene_values(
    blocks: Iterable[PairSums], tokens: npt.NDArray[np.int64], rank_by: str, min_gene_tokens: int
) -> Iterator[pd.DataFrame]:
    """The rows of a table of rankings, one frame per block.

    blocks: sums of consecutive units, in order. tokens: int64 [genes], tokens of each gene, active or not. rank_by: specificity | score.
    """
    all_tokens = int(tokens.sum())
    for block in blocks:
        n_units = len(block.ptr) - 1
        unit = np.repeat(np.arange(n_units), np.diff(block.ptr))
        value = block.activation_weight
        if rank_by == "specificity":
            active = np.bincount(unit, weights=block.n_active, minlength=n_units)
            total = np.bincount(unit, weights=block.activation, minlength=n_units)
            value = specificity(block.activation, total[unit], active[unit], tokens[block.unit], all_tokens)
            value[tokens[block.unit] < min_gene_tokens] = np.nan
        value = np.where(block.activation_weight > 0, value, 0.0).astype(np.float32)
        kept = np.flatnonzero(value > 0)
        yield pd.DataFrame(
            {"feature": (block.first + unit[kept]).astype(np.int32), "gene": block.unit[kept], "value": value[kept]}
        )
