"""What every enrichment test gives, and what tests of overlaps have in common.

Overlaps come from one sparse product. A test of overlaps is a function of four numbers, so it is computed once for each
different (k, K, n) and not once per list and set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.validation.gene_lists import GeneLists

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Enrichment:
    """The tests of lists against sets that are worth a row; all others that were made have p = 1 and q = 1.

    row: index of the list. term: index of the set. Each pair stands here once at most; a test of overlaps has those that share a gene.
    n_overlap, n_term, n_top: k, K, n. n_background: N. n_tests: tests made, lists x sets; q_value is over all of them.
    """

    row: npt.NDArray[np.int64]
    term: npt.NDArray[np.int64]
    n_overlap: npt.NDArray[np.int64]
    n_term: npt.NDArray[np.int64]
    n_top: npt.NDArray[np.int64]
    p_value: npt.NDArray[np.float64]
    q_value: npt.NDArray[np.float64]
    n_background: int
    n_tests: int

    @property
    def odds_ratio(self) -> npt.NDArray[np.float64]:
        """Sample odds ratio, 0.5 added to every cell of the table. Not kept: the repeats of the nulls do not need it."""
        k, n, set_size = self.n_overlap, self.n_top, self.n_term
        odds: npt.NDArray[np.float64] = (k + 0.5) * (self.n_background - n - set_size + k + 0.5)
        return odds / ((n - k + 0.5) * (set_size - k + 0.5))


def of_overlaps(
    lists: GeneLists, sets: sparse.csr_matrix, tail: Callable[[Counts, Counts, Counts, int], npt.NDArray[np.float64]]
) -> Enrichment:
    """Test every list against every set by the number of genes that they share.

    sets: csr int32 [background, terms], 1 for a member.
    tail: (k, K, n, N) -> p, elementwise; k, K and n are int64 [tests], N is the number of genes of the background.
    q is Benjamini-Hochberg over all lists x sets.
    """
    n_background, n_terms = sets.shape
    overlap = (lists.matrix @ sets).tocoo()
    size = np.bincount(sets.indices, minlength=n_terms).astype(np.int64)
    k, n, set_size = overlap.data.astype(np.int64), lists.sizes[overlap.row], size[overlap.col]
    n_tests = len(lists.unit) * n_terms
    some, kind = _kinds(k, set_size, n)
    p = tail(k[some], set_size[some], n[some], n_background)
    q = benjamini_hochberg(p, n_tests, np.bincount(kind, minlength=len(some)))
    return Enrichment(
        overlap.row.astype(np.int64),
        overlap.col.astype(np.int64),
        k,
        set_size,
        n,
        p[kind],
        q[kind],
        n_background,
        n_tests,
    )


def _kinds(k: Counts, set_size: Counts, n: Counts) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Different (k, K, n), of which a few thousand stand behind millions of tests: one test of each, and each test's kind."""
    if not len(k):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    key = (k * (set_size.max() + 1) + set_size) * (n.max() + 1) + n
    if key.max() > 1 << 26:
        _, some, kind = np.unique(key, return_index=True, return_inverse=True)
        return some, kind
    example = np.full(key.max() + 1, -1, dtype=np.int64)
    example[key] = np.arange(len(key))
    present = np.flatnonzero(example >= 0)
    number = np.empty(len(example), dtype=np.int64)
    number[present] = np.arange(len(present))
    return example[present], number[key]
