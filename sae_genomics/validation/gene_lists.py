"""What a test is given of each unit: its top genes, cut at validation.top_genes, and for some tests its whole ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from sae_genomics.validation.gene_sets import Membership
from sae_genomics.validation.rank_scores import RankScores


@dataclass(frozen=True)
class GeneLists:
    """Top genes of units.

    unit: int64 [units], ascending; only units with at least one gene.
    matrix: csr int32 [units, background], 1 for a gene of the list.
    scores: of the whole ranking; None for a test that reads lists.
    """

    unit: npt.NDArray[np.int64]
    matrix: sparse.csr_matrix
    scores: RankScores | None = None

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Genes of each list: int64 [units]."""
        return np.diff(self.matrix.indptr).astype(np.int64)

    @property
    def ranking(self) -> RankScores:
        """The scores, for a test that reads them."""
        if self.scores is None:
            raise ValueError("these lists have no scores: they were not made for a test of rankings")
        return self.scores


def top_genes(genes: pd.DataFrame, members: Membership, rank_by: str, n_top: int) -> GeneLists:
    """Each unit's first `n_top` genes.

    genes: feature_genes.parquet or a baseline's table of the same columns. rank_by: specificity | score.

    Genes need a score above zero and, ranked by specificity, a specificity. Genes outside the background are passed
    over; of several genes with one symbol the first stands for all.
    """
    rank = genes[f"rank_{rank_by}"]
    usable = (genes["score"] > 0) & rank.notna()
    if rank_by == "specificity":
        usable &= np.isfinite(genes["specificity"].to_numpy(np.float64))
    chosen = pd.DataFrame(
        {
            "unit": genes["feature"][usable].to_numpy(np.int64),
            "rank": rank[usable].to_numpy(np.int64),
            "gene": members.positions(genes["gene_symbol"][usable].to_numpy(object)),
        }
    )
    chosen = chosen[chosen["gene"] >= 0].sort_values(["unit", "rank"], kind="stable")
    chosen = chosen.drop_duplicates(["unit", "gene"])
    chosen = chosen[chosen.groupby("unit").cumcount() < n_top]
    unit, row = np.unique(chosen["unit"].to_numpy(), return_inverse=True)
    matrix = sparse.csr_matrix(
        (np.ones(len(chosen), dtype=np.int32), (row, chosen["gene"].to_numpy())),
        shape=(len(unit), len(members.background)),
    )
    return GeneLists(unit, matrix)
