"""Terms of a hierarchy that are found for the genes of a more specific term that is found too.

A term holds the genes of all terms below it. So a feature that reads `mitochondrial respiratory chain complex I` off is found for
`organelle` as well. Here every found term is tested again without the genes of the found terms below it. With U their union, and list,
set and background without U,

    p' = P(X >= k - |U n L n P|),   X hypergeometric with |P| - |U n P|, n - |U n L| and N - |U|.

The term stands when p' is not above `cut`, the largest p at which a term of the layer is found: its other genes would be found alone. Else
it is explained by the term below it that shares the most genes with the list. Terms are taken from the most specific ones up, and only terms
that stand explain others: what is explained claims no genes of its own. (The idea is that of `elim`: Alexa et al. 2006,
Bioinformatics 22:1600. There a p-value alone decides which genes are taken away; here the terms of the table do.)

A test of whole rankings may find a term that the top genes alone do not: with p of the whole overlap above `cut`. It is explained where
its top genes are, which is told by 0.05 in place of `cut`.

The loops run over levels of the hierarchy and over blocks of tests, never over tests or features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats

from sae_genomics.validation.enrichment import Enrichment
from sae_genomics.validation.gene_sets import Collection, Membership
from sae_genomics.validation.normal_form.hierarchy import ancestors

NOMINAL = 0.05
_ROUNDING = 1 + 1e-6  # two ways to compute the same p
_BLOCK_GENES = 1 << 23  # genes of all tests of a block, which bounds the memory
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """Tests that found a term, in any order: int64 [found].

    row: of the list. term: of the set. n_overlap, n_term, n_top, n_background: k, K, n and N of the test.
    """

    row: Counts
    term: Counts
    n_overlap: Counts
    n_term: Counts
    n_top: Counts
    n_background: Counts


def explained_rows(
    tests: Enrichment,
    is_found: npt.NDArray[np.bool_],
    lists: sparse.csr_matrix,
    members: Membership,
    collections: Sequence[Collection],
) -> npt.NDArray[np.object_]:
    """For every row of `tests` the term_id that explains it, empty text where none does and where nothing is found: [rows].

    is_found: bool [rows]. lists: csr [lists, background], 1 for a gene of the list; the top genes for a test of whole rankings.
    """
    result = np.full(len(tests.row), "", dtype=object)
    if is_found.any():
        here = tests.only(is_found)
        found = Found(here.row, here.term, here.n_overlap, here.n_term, here.n_top, here.n_background)
        result[is_found] = explained_by(found, lists, members, collections, float(here.p_value.max()))
    return result


def explained_by(
    found: Found, lists: sparse.csr_matrix, members: Membership, collections: Sequence[Collection], cut: float
) -> npt.NDArray[np.object_]:
    """For every found test the term_id of the found term below that explains it, else empty text.

    lists: csr [lists, background], 1 for a gene of the list. cut: the largest p at which a term is found.
    """
    which = explaining(found, lists, members.matrix, terms_below(collections, members), cut)
    return np.append(members.term_id, "")[which]


def terms_below(collections: Sequence[Collection], members: Membership) -> sparse.csr_matrix:
    """bool [terms, terms]: row a tested term, columns the tested terms of its collection that are below it, not itself."""
    n = len(members.term_id)
    upper: list[npt.NDArray[np.integer]] = [np.empty(0, dtype=np.int64)]
    lower: list[npt.NDArray[np.integer]] = [np.empty(0, dtype=np.int64)]
    for collection in collections:
        tested = np.flatnonzero(members.collection == collection.name)
        if not collection.parents or not len(tested):
            continue
        ids, above = ancestors(_pairs(collection.parents))
        at = ids.get_indexer(members.term_id[tested])
        tested, at = tested[at >= 0], at[at >= 0]
        inside = above[at][:, at].tocoo()
        upper.append(tested[inside.col])
        lower.append(tested[inside.row])
    pairs = (np.concatenate(upper), np.concatenate(lower))
    below = sparse.coo_matrix((np.ones(len(pairs[0]), dtype=bool), pairs), shape=(n, n)).tocsr()
    return (below > below.multiply(below.T)).tocsr()  # neither itself, nor two terms that are above each other


def _pairs(parents: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    terms = np.repeat(np.array(list(parents), dtype=object), [len(ids) for ids in parents.values()])
    return pd.DataFrame({"term_id": terms, "parent_id": [each for ids in parents.values() for each in ids]})


def explaining(
    found: Found, lists: sparse.csr_matrix, sets: sparse.csr_matrix, below: sparse.csr_matrix, cut: float
) -> Counts:
    """The term that explains each test, or -1: int64 [found].

    sets: csr [background, terms]. below: as `terms_below` gives it.
    """
    result = np.full(len(found.row), -1, dtype=np.int64)
    genes, lists = sets.T.tocsr().astype(bool), lists.astype(bool)
    levels = _levels(below)[found.term]
    for level in range(1, int(levels.max(initial=0)) + 1):
        stands = (levels < level) & (result < 0)
        shape = (lists.shape[0], below.shape[0])
        standing = sparse.coo_matrix(
            (np.ones(stands.sum(), bool), (found.row[stands], found.term[stands])), shape=shape
        ).tocsr()
        tests = np.flatnonzero(levels == level)
        for block in _blocks(tests, found.n_term[tests]):
            result[block] = _explained(found, block, standing, lists, genes, below, cut)
    return result


def _levels(below: sparse.csr_matrix) -> Counts:
    """0 for a term without tested terms below it, else one more than the highest of those: int64 [terms]."""
    level = np.full(below.shape[0], -1, dtype=np.int64)
    counts = below.astype(np.int32)
    now = 0
    while (level < 0).any():
        open_below = counts @ (level < 0).astype(np.int32)
        level[(level < 0) & (open_below == 0)] = now
        now += 1
    return level


def _blocks(tests: Counts, sizes: Counts) -> list[Counts]:
    """Tests in blocks whose sets have a bounded number of genes together."""
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _BLOCK_GENES)) + 1
    return [block for block in np.split(tests, cuts) if len(block)]


def _explained(
    found: Found,
    tests: Counts,
    standing: sparse.csr_matrix,
    lists: sparse.csr_matrix,
    genes: sparse.csr_matrix,
    below: sparse.csr_matrix,
    cut: float,
) -> Counts:
    """The explaining term of each of `tests`, all of one level, or -1."""
    result = np.full(len(tests), -1, dtype=np.int64)
    inner = standing[found.row[tests]].multiply(below[found.term[tests]]).tocsr()
    some = np.flatnonzero(np.diff(inner.indptr))
    if not len(some):
        return result
    inner, tests = inner[some].astype(bool), tests[some]
    union = (inner @ genes).astype(bool)
    mine, own = lists[found.row[tests]], genes[found.term[tests]]
    shared = mine.multiply(own).tocsr()
    whole = stats.hypergeom.sf(
        found.n_overlap[tests] - 1, found.n_background[tests], found.n_term[tests], found.n_top[tests]
    )
    p = stats.hypergeom.sf(
        found.n_overlap[tests] - _sizes(union.multiply(shared)) - 1,
        found.n_background[tests] - _sizes(union),
        found.n_term[tests] - _sizes(union.multiply(own)),
        found.n_top[tests] - _sizes(union.multiply(mine)),
    )
    agree = (shared.astype(np.int32) @ genes.T.astype(np.int32)).multiply(inner).tocoo()
    least = np.where(whole <= cut * _ROUNDING, cut, NOMINAL)
    explains = ((p > least) & (whole <= np.maximum(least, cut * _ROUNDING)))[agree.row] & (agree.data > 0)
    row, term, count = agree.row[explains], agree.col[explains], agree.data[explains]
    # The most shared genes first, then the smaller set, then the order of the sets.
    order = np.lexsort((term, _sizes(genes)[term], -count, row))
    first, at = np.unique(row[order], return_index=True)
    result[some[first]] = term[order][at]
    return result


def _sizes(matrix: sparse.spmatrix) -> Counts:
    """Genes in each row: int64 [rows]."""
    return np.diff(matrix.tocsr().indptr).astype(np.int64)
