"""Hierarchies of terms: what is above a term, and the genes of a term together with those of the terms below it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse


def ancestors(parents: pd.DataFrame) -> tuple[pd.Index, sparse.csr_matrix]:
    """Everything above every term: R = I + A R until nothing is new, with A[term, parent] true.

    parents: term_id, parent_id, as in terms_parents.parquet. Returns the ids, and bool [ids, ids]: row a term, columns itself and
    what is above it. One multiplication for each level, so the work is that of the result and not of all pairs.
    """
    ids, up = _matrix(parents)
    itself = sparse.identity(len(ids), dtype=bool, format="csr")
    above = itself
    while True:
        further = (itself + up @ above).astype(bool)
        if further.nnz == above.nnz:
            return ids, above
        above = further


def closes_circle(parents: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows between two terms that are above each other, and of a term to itself: bool [rows]."""
    if not len(parents):
        return np.zeros(0, dtype=bool)
    ids, matrix = _matrix(parents)
    _, component = sparse.csgraph.connected_components(matrix, directed=True, connection="strong")
    return component[ids.get_indexer(parents["term_id"])] == component[ids.get_indexer(parents["parent_id"])]


def propagated(
    said: sparse.csr_matrix, denied: sparse.csr_matrix, terms: pd.Index, parents: pd.DataFrame
) -> tuple[pd.Index, sparse.csr_matrix]:
    """A gene of a term belongs to every term above it: M' = R^T M, with R as `ancestors` gives it.

    said, denied: bool [terms, genes], what the source says and what it denies. A gene that the source denies a term does not come to it
    from the terms below; what it says itself stays. Returns the terms, those of `parents` that have no statement last, and bool
    [terms, genes]. Memory is that of the result.
    """
    itself = pd.DataFrame({"term_id": terms, "parent_id": terms}, dtype=object)
    every, above = ancestors(pd.concat([itself, parents[["term_id", "parent_id"]]], ignore_index=True))
    own, refused = _longer(said, len(every)), _longer(denied, len(every))
    result = (above.T.tocsr() @ own).astype(bool)
    result = (result > (result.multiply(refused) > own)).tocsr()
    result.sort_indices()
    return every, result


def _longer(matrix: sparse.csr_matrix, n_rows: int) -> sparse.csr_matrix:
    """The same with empty rows after it."""
    pointers = np.append(matrix.indptr, np.full(n_rows - matrix.shape[0], matrix.indptr[-1], matrix.indptr.dtype))
    return sparse.csr_matrix((matrix.data.astype(bool), matrix.indices, pointers), shape=(n_rows, matrix.shape[1]))


def _matrix(parents: pd.DataFrame) -> tuple[pd.Index, sparse.csr_matrix]:
    """The ids of both columns, and which is directly above which."""
    codes, distinct = pd.factorize(np.concatenate([parents["term_id"], parents["parent_id"]]).astype(object))
    child, parent = codes[: len(parents)], codes[len(parents) :]
    shape = (len(distinct), len(distinct))
    matrix = sparse.coo_matrix((np.ones(len(child), dtype=bool), (child, parent)), shape=shape).tocsr()
    return pd.Index(distinct, dtype=object), matrix
