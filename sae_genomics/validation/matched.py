"""Fisher's exact test among genes of similar detection and expression: what of an overlap is more than expression.

A list of highly expressed genes meets a set of highly expressed genes more often than a random list does, and no biology is needed for that.
Within a bin of `background.matched_bins` genes are much alike. So the test takes the number of genes that list and set have in each bin as
given, and asks whether they share more of them than independent draws within every bin would: the sum of one hypergeometric number
per bin (`kernels.stratified_tail`). Shuffling names within bins, as the null `matched_genes` does, draws from this very distribution.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.kernels.arrays import Strata
from sae_genomics.kernels.stratified_tail import stratified_tail
from sae_genomics.validation.enrichment import Counts, Enrichment, Floats, Sets
from sae_genomics.validation.gene_lists import GeneLists

LISTS_AT_ONCE = 1 << 12


def matched_overlaps(lists: GeneLists, sets: Sets, tests: Enrichment) -> Floats:
    """P(as many shared genes or more) when list and set are independent within each bin: float64 [rows]."""
    p = np.empty(len(tests.row))
    named, members = _per_bin(sets.universe, sets.bins), _per_bin(sets.matrix, sets.bins)
    for start in range(0, len(lists.unit), LISTS_AT_ONCE):
        here = np.flatnonzero((tests.row >= start) & (tests.row < start + LISTS_AT_ONCE))
        if not len(here):
            continue
        strata = Strata(
            sets.source, named.astype(np.int64), members, _listed(lists.matrix[start : start + LISTS_AT_ONCE], sets)
        )
        p[here] = stratified_tail(strata, tests.row[here] - start, tests.term[here], tests.n_overlap[here])
    return p


def _per_bin(columns: sparse.csr_matrix | npt.NDArray[np.bool_], bins: Counts) -> npt.NDArray[np.int32]:
    """Genes of each column in each bin: int32 [columns, bins]."""
    return np.ascontiguousarray(sparse.csr_matrix(columns, dtype=np.int32).T @ _in_bins(bins).toarray(), dtype=np.int32)


def _listed(lists: sparse.csr_matrix, sets: Sets) -> npt.NDArray[np.int32]:
    """Genes of each list in each bin, as far as each source could have named them: int32 [lists, sources, bins]."""
    n_sources, n_bins = sets.universe.shape[1], int(sets.bins.max(initial=-1)) + 1
    of_source = [(lists @ _in_bins(sets.bins, sets.universe[:, number])).toarray() for number in range(n_sources)]
    return np.stack(of_source, axis=1).astype(np.int32).reshape(lists.shape[0], n_sources, n_bins)


def _in_bins(bins: Counts, named: npt.NDArray[np.bool_] | None = None) -> sparse.csr_matrix:
    """1 where a gene is in a bin: int32 [background, bins]; genes that are not named are in none."""
    gene = np.arange(len(bins)) if named is None else np.flatnonzero(named)
    shape = (len(bins), int(bins.max(initial=-1)) + 1)
    return sparse.csr_matrix((np.ones(len(gene), dtype=np.int32), (gene, bins[gene])), shape=shape)
