"""Terms that share most of their genes are one family.

Who finds a pathway often finds its parent and its near copies in other databases too. Counted one by one they would be many agreements. A family
counts once: it is found where one of its terms is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

SHARED = 0.5  # least share of genes in common, of all genes of the two (Jaccard)
_BLOCK = 512  # terms compared with all others at once


def families(matrix: sparse.csr_matrix) -> npt.NDArray[np.int64]:
    """The family of each term: int64 [terms], from 0. matrix: csr [genes, terms], 1 for a member.

    Two terms are linked when |A and B| / |A or B| is SHARED or more. A family is a connected part of these links.
    """
    terms = matrix.T.tocsr().astype(np.int32)
    size = np.diff(terms.indptr)
    rows, columns = [], []
    for start in range(0, terms.shape[0], _BLOCK):
        both = (terms[start : start + _BLOCK] @ terms.T).tocoo()
        either = size[start + both.row] + size[both.col] - both.data
        linked = both.data >= SHARED * either
        rows.append(start + both.row[linked])
        columns.append(both.col[linked])
    if not rows:
        return np.empty(0, dtype=np.int64)
    row, column = np.concatenate(rows), np.concatenate(columns)
    links = sparse.coo_matrix((np.ones(len(row), dtype=np.int8), (row, column)), shape=(terms.shape[0],) * 2)
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)
