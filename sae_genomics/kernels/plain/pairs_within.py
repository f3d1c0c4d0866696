"""How many pairs of a network lie within each list of genes, after the genes were renamed.

With A the network, g_1 ... g_n a list, and r_d the d-th renaming of genes:

    count[d, list] = sum over i < j of A[r_d(g_i), r_d(g_j)]
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse


def pairs_within(
    lists: sparse.csr_matrix, names: npt.NDArray[np.int32], upper: sparse.csr_matrix
) -> npt.NDArray[np.int32]:
    """int32 [draws, lists].

    lists: [lists, genes]; each stored entry is a gene of a list. names: [draws, genes], a permutation of genes in each row.
    upper: [genes, genes]; each stored entry is a pair, once, never a gene with itself.
    """
    n_lists, n_genes = lists.shape
    row = np.repeat(np.arange(n_lists), np.diff(lists.indptr))
    network = sparse.csr_matrix((np.ones(len(upper.indices), dtype=np.int32), upper.indices, upper.indptr), upper.shape)
    found = np.zeros((len(names), n_lists), dtype=np.int32)
    for draw, name in enumerate(names):
        ones = np.ones(len(row), dtype=np.int32)
        renamed = sparse.csr_matrix((ones, (row, name[lists.indices])), shape=(n_lists, n_genes))
        found[draw] = np.asarray((renamed @ network).multiply(renamed).sum(axis=1)).ravel()
    return found
