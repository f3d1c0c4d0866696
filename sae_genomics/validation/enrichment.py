"""Over-representation of units' gene lists in gene sets: every unit against every set, exact.

A list of n genes out of a background of N shares k with a set of K. If the list were a random draw, k would be
hypergeometric, and

    p = P(X >= k) = sum_{x >= k} C(K, x) C(N - K, n - x) / C(N, n)

(one-sided Fisher's exact test). Overlaps come from one sparse product; p from log-gamma at k and the ratio of
neighbouring terms from there on, so all terms are positive and no digits are lost however small p is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from scipy.special import gammaln

from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.validation.gene_sets import Membership


@dataclass(frozen=True)
class GeneLists:
    """Top genes of units.

    unit: int64 [units], ascending; only units with at least one gene.
    matrix: csr int32 [units, background], 1 for a gene of the list.
    """

    unit: npt.NDArray[np.int64]
    matrix: sparse.csr_matrix

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Genes of each list: int64 [units]."""
        return np.diff(self.matrix.indptr).astype(np.int64)


@dataclass(frozen=True)
class Enrichment:
    """Tests with at least one shared gene; all others made have p = 1 and q = 1.

    row: position among the lists. term: position among the sets. n_overlap, n_term, n_top: k, K, n.
    n_background: N. n_tests: lists x sets.
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


def enrich(lists: GeneLists, sets: sparse.csr_matrix) -> Enrichment:
    """Test every list against every set.

    sets: csr int32 [background, terms], 1 for a member.
    """
    n_background, n_terms = sets.shape
    overlap = (lists.matrix @ sets).tocoo()
    size = np.bincount(sets.indices, minlength=n_terms).astype(np.int64)
    k, n, set_size = overlap.data.astype(np.int64), lists.sizes[overlap.row], size[overlap.col]
    n_tests = len(lists.unit) * n_terms
    some, kind = _kinds(k, set_size, n)
    p = hypergeometric_tail(k[some], set_size[some], n[some], n_background)
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


def _kinds(
    k: npt.NDArray[np.int64], set_size: npt.NDArray[np.int64], n: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
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
    place = np.empty(len(example), dtype=np.int64)
    place[present] = np.arange(len(present))
    return example[present], place[key]


def hypergeometric_tail(
    k: npt.NDArray[np.int64], set_size: npt.NDArray[np.int64], n: npt.NDArray[np.int64], n_background: int
) -> npt.NDArray[np.float64]:
    """P(X >= k) for X hypergeometric, elementwise; all arrays [tests].

    The loop runs over the at most min(K, n) further terms of the sum, never over tests.
    """
    big_n, big_k, draws = float(n_background), set_size.astype(np.float64), n.astype(np.float64)
    least = np.maximum(draws + big_k - big_n, 0.0)
    x = np.maximum(k.astype(np.float64), least)
    log_first = _log_choose(big_k, x) + _log_choose(big_n - big_k, draws - x) - _log_choose(big_n, draws)
    first, last = x, np.minimum(big_k, draws)
    sums, factor = np.ones_like(x), np.ones_like(x)
    while bool((active := (x < last) & (factor > 1e-18 * sums)).any()):
        ratio = (big_k - x) * (draws - x) / ((x + 1) * (big_n - big_k - draws + x + 1))
        factor = np.where(active, factor * ratio, 0.0)
        sums += factor
        x = x + 1
    tail = np.where(first <= least, 1.0, np.minimum(np.exp(log_first) * sums, 1.0))
    tail[first > last] = 0.0
    return tail


def _log_choose(n: npt.NDArray[np.float64] | float, k: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logarithm: npt.NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logarithm
