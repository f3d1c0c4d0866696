"""A test over the whole ranking: do a set's genes stand higher in a unit's ranking than a random draw of as many genes would?

Every gene has the Savage score of its rank, see `rank_scores`. The statistic is the sum over the set,

    T = sum_{g in set} a_g

and one product of scores and sets gives it for all units and sets. If the set were a random draw of K of the N genes, T would have the mean K and
the variance K (N - K) / (N - 1) var(a). Tests whose T is LEAST_Z standard deviations above the mean, or more, get p by the double
saddlepoint formula (`kernels.sample_sums`). All others have p above 0.05, and no row.

Against drawings within bins (`matched_p`) the same formula holds, with one stratum per bin.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.artifacts import Inference
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.kernels.arrays import Samples
from sae_genomics.kernels.compiled import each_range
from sae_genomics.kernels.sample_sums import upper_tails
from sae_genomics.validation.enrichment import Enrichment
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.rank_scores import RankScores

LEAST_Z = 1.5
_UNITS_AT_ONCE, _SUMS_AT_ONCE = 256, 32


def run(lists: GeneLists, sets: sparse.csr_matrix) -> Enrichment:
    """Every ranking against every set."""
    n_genes, n_terms = sets.shape
    scores, size = lists.ranking, np.bincount(sets.indices, minlength=n_terms).astype(np.int64)
    by_term = sets.T.tocsr().astype(np.float64)
    parts = []
    for first in range(0, len(lists.unit), _UNITS_AT_ONCE):
        block = np.arange(first, min(first + _UNITS_AT_ONCE, len(lists.unit)))
        row, term, total = _worth_a_row(scores, by_term, size, block)
        p = upper_tails(scores.nodes(block), Samples(row, term, total, size[:, None]))
        parts.append((block[row], term, _shared(lists.matrix[block] @ sets, row, term), p))
    row, term, shared, p = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else _nothing()
    n_tests = len(lists.unit) * n_terms
    return Enrichment(
        row, term, shared, size[term], lists.sizes[row], p, benjamini_hochberg(p, n_tests), n_genes, n_tests
    )


def _nothing() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    none = np.empty(0, dtype=np.int64)
    return none, none, none, np.empty(0)


def _shared(
    overlaps: sparse.csr_matrix, row: npt.NDArray[np.int64], term: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """How many genes of the top list are in the set: int64 [tests]. overlaps: csr [lists, terms]."""
    sharing, n_terms = overlaps.tocoo(), overlaps.shape[1]
    key = sharing.row.astype(np.int64) * n_terms + sharing.col
    order = np.argsort(key)
    wanted = row * n_terms + term
    at = np.searchsorted(key[order], wanted)
    there = np.append(key[order], -1)[at] == wanted
    shared: npt.NDArray[np.int64] = np.where(there, np.append(sharing.data[order], 0)[at], 0).astype(np.int64)
    return shared


def _worth_a_row(
    scores: RankScores, by_term: sparse.csr_matrix, size: npt.NDArray[np.int64], block: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Place in the block, set and sum of scores of the tests that get a p."""
    n_terms, n_genes = by_term.shape
    spread = np.sqrt(size * (n_genes - size) / max(n_genes - 1, 1))
    total = np.empty((n_terms, len(block)))

    def add_up(first: int, last: int) -> None:
        dense = np.ascontiguousarray(scores.matrix[block[first:last]].toarray().T)
        total[:, first:last] = by_term @ dense

    each_range(len(block), _SUMS_AT_ONCE, add_up)
    total += np.outer(size, scores.tied[block])
    least = size[:, None] + LEAST_Z * np.outer(spread, np.sqrt(scores.variance[block]))
    found = total >= least
    found &= (spread > 0)[:, None] & (scores.variance[block] > 0)
    term, place = np.nonzero(found)
    return place, term, total[term, place]


def matched_p(
    lists: GeneLists, sets: sparse.csr_matrix, bins: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64], term: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:  # fmt: skip
    """p of some tests where a set's genes are drawn at random within each bin, as many as it has there: float64 [tests].

    bins: int64 [background]. row, term: int64 [tests], list and set.
    """
    n_genes = sets.shape[0]
    n_bins = int(bins.max(initial=-1)) + 1
    in_bin = sparse.csr_matrix((np.ones(n_genes), (bins, np.arange(n_genes))), shape=(n_bins, n_genes))
    drawn = (in_bin @ sets).T.toarray().astype(np.int64)
    by_term, scores = sets.T.tocsr().astype(np.float64), lists.ranking
    p = np.empty(len(row))
    order = np.argsort(row, kind="stable")
    for first in range(0, len(lists.unit), _UNITS_AT_ONCE):
        start, stop = np.searchsorted(row[order], [first, first + _UNITS_AT_ONCE])
        if start == stop:
            continue
        tests = order[start:stop]
        units, place = np.unique(row[tests], return_inverse=True)
        wanted, of_wanted = np.unique(term[tests], return_inverse=True)
        total = (by_term[wanted] @ np.ascontiguousarray(scores.matrix[units].toarray().T))[of_wanted, place]
        total += drawn[term[tests]].sum(axis=1) * scores.tied[row[tests]]
        p[tests] = upper_tails(
            scores.nodes_by_bin(units, bins), Samples(place.astype(np.int64), term[tests], total, drawn)
        )
    return p


SAVAGE = EnrichmentTest(
    name="savage",
    description="sum of Savage scores over the whole ranking",
    inference=Inference(
        "one gene of the background",
        "the genes of the set (n_term) among all genes of the background (n_background), by their rank in the feature",
        "the set's genes are drawn at random from the background; p by the double saddlepoint formula",
    ),
    run=run,
    reads="ranking",
)
