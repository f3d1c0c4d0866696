"""From a table of rankings to what a test of rankings is given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.gene_sets import Membership
from sae_genomics.validation.rank_scores import savage_scores


def whole_rankings(
    values: pd.DataFrame, symbols: npt.NDArray[np.object_], members: Membership, n_top: int
) -> GeneLists:
    """The scores of each unit's genes of the background, and its first `n_top` genes by value.

    values: columns feature, gene and value of a table of artifacts.RANKINGS; value is above zero. symbols: text [genes], of gene_tokens.parquet.

    Genes outside the background are passed over; of several genes with one symbol the highest stands for all.
    """
    gene = members.positions(symbols)[values["gene"].to_numpy()]
    known = np.flatnonzero(gene >= 0)
    unit, row = np.unique(values["feature"].to_numpy(np.int64)[known], return_inverse=True)
    gene, value = gene[known], values["value"].to_numpy(np.float32)[known]
    if len(np.unique(members.positions(symbols))) < len(symbols):  # some symbol stands for several genes, or for none
        order = np.lexsort((-value, gene, row))
        first = np.append(True, (np.diff(row[order]) != 0) | (np.diff(gene[order]) != 0))[: len(order)]
        row, gene, value = row[order][first], gene[order][first], value[order][first]
    shape = (len(unit), len(members.background))
    matrix = sparse.csr_matrix((value, (row, gene)), shape=shape)
    ranking = savage_scores(matrix)
    scores = ranking.matrix  # from the highest within a unit
    place = np.arange(scores.nnz) - np.repeat(scores.indptr[:-1], np.diff(scores.indptr))
    top = place < n_top
    ones = np.ones(int(top.sum()), dtype=np.int32)
    lists = sparse.csr_matrix(
        (ones, (np.repeat(np.arange(len(unit)), np.diff(scores.indptr))[top], scores.indices[top])), shape=shape
    )
    return GeneLists(unit, lists, ranking)
