"""A test over the whole ranking: do a set's genes stand higher in a unit's ranking than a random draw of as many genes would?

Every gene has the Savage score of its rank among the genes that the set's source could have named, see `rank_scores`. The statistic is the sum
over the set,

    T = sum_{g in set} a_g

and one product of scores and sets gives it for all units and sets. If the set were a random draw of K of the N genes, T would have the mean K and
the variance K (N - K) / (N - 1) var(a). Tests whose T is far enough above the mean get p by the double saddlepoint formula
(`kernels.sample_sums`); for all others p is above what is kept.

Among genes of similar expression the set's genes are drawn at random within each bin, as many as it has there. The same formula holds,
with one stratum per bin.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import ndtri

from sae_genomics.artifacts import Inference
from sae_genomics.kernels.arrays import Samples
from sae_genomics.validation.enrichment import Counts, Enrichment, Floats, Keep, Sets, false_discovery
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.rank_scores import RankScores

MARGIN = 0.15  # in z: a tail above a normal one; sums of more than half of all genes have a shorter one
_UNITS_AT_ONCE, _SUMS_AT_ONCE = 256, 32


def run(lists: GeneLists, sets: Sets, keep: Keep) -> Enrichment:
    """Every ranking against every set."""
    from sae_genomics.validation.overlaps import sizes_in_sources  # numba: see `enrichment_test`

    n_lists, n_terms = len(lists.unit), len(sets.source)
    empty = np.empty(0, dtype=np.int64)
    parts: list[tuple[Counts, Counts, Floats]] = [(empty, empty, np.empty(0))]
    by_term = sets.matrix.T.tocsr().astype(np.float64)
    for first in range(0, n_lists, _UNITS_AT_ONCE):
        block = np.arange(first, min(first + _UNITS_AT_ONCE, n_lists))
        row, term, p = _block(lists.ranking.of(block), by_term, sets, keep)
        parts.append((row + first, term, p))
    row, term, p = (np.concatenate(part) for part in zip(*parts, strict=True))
    source = sets.source[term]
    q, q_source = false_discovery(p, source, sets.source, n_lists)
    kept = _has_a_row(row, term, p, keep)
    row, term, source = row[kept], term[kept], source[kept]
    return Enrichment(
        row, term, _shared(lists, sets, row, term), sets.sizes[term], sizes_in_sources(lists, sets)[row, source],
        sets.universe.sum(axis=0)[source], p[kept], q[kept], q_source[kept], n_lists * n_terms,
    )  # fmt: skip


def _block(ranking: RankScores, by_term: sparse.csr_matrix, sets: Sets, keep: Keep) -> tuple[Counts, Counts, Floats]:
    """List, set and p of the tests of some lists that may have a row."""
    from sae_genomics.kernels.sample_sums import upper_tails

    n_lists, size = len(ranking.tied), sets.sizes
    total, z = (np.zeros((len(size), n_lists)) for _ in range(2))
    sources = [(np.flatnonzero(sets.source == number), genes) for number, genes in enumerate(sets.universe.T)]
    scores = [ranking.among(genes) for _, genes in sources]
    for of_source, (terms, _) in zip(scores, sources, strict=True):
        total[terms] = _sums(of_source, by_term[terms], size[terms])
        z[terms] = _z(total[terms], of_source, size[terms])
    term, row = np.nonzero(_may_have_a_row(z, keep))
    p = np.empty(len(row))
    for of_source, (terms, _) in zip(scores, sources, strict=True):
        here = np.isin(term, terms)
        samples = Samples(row[here], term[here], total[term[here], row[here]], size[:, None])
        p[here] = upper_tails(of_source.nodes(), samples)
    return row, term, p


def _sums(scores: RankScores, by_term: sparse.csr_matrix, size: Counts) -> Floats:
    """T of every set and list: float64 [terms, lists]."""
    from sae_genomics.kernels.compiled import each_range

    total = np.empty((len(size), len(scores.tied)))

    def add_up(first: int, last: int) -> None:
        dense = np.ascontiguousarray(scores.matrix[first:last].toarray().T)
        total[:, first:last] = by_term @ dense

    each_range(len(scores.tied), _SUMS_AT_ONCE, add_up)
    total += np.outer(size, scores.tied)
    return total


def _z(total: Floats, scores: RankScores, size: Counts) -> Floats:
    """Standard deviations above the mean; minus infinity where nothing varies."""
    n = scores.n_genes
    spread = np.outer(np.sqrt(size * np.maximum(n - size, 0) / max(n - 1, 1)), np.sqrt(scores.variance))
    return np.divide(total - size[:, None], spread, out=np.full_like(total, -np.inf), where=spread > 0)


def _may_have_a_row(z: Floats, keep: Keep) -> npt.NDArray[np.bool_]:
    """Tests for which p is computed: all that may be below keep.p, and the best of each list. z: float64 [terms, lists]."""
    tested = np.isfinite(z)
    found = tested.copy() if keep.p >= 0.5 else z >= -ndtri(keep.p) - MARGIN
    n_best = min(keep.best, len(z))
    if n_best:
        best = np.argpartition(-z, n_best - 1, axis=0)[:n_best]
        np.put_along_axis(found, best, True, axis=0)
    return found & tested


def _has_a_row(row: Counts, term: Counts, p: Floats, keep: Keep) -> npt.NDArray[np.bool_]:
    """Which tests `keep` asks for, of those with a p: bool [tests]; of equal p the set that comes first."""
    order = np.lexsort((term, p, row))
    of_list = row[order]
    place = np.empty(len(row), dtype=np.int64)
    place[order] = np.arange(len(row)) - np.searchsorted(of_list, of_list)
    return (p <= keep.p) | (place < keep.best)


def _shared(lists: GeneLists, sets: Sets, row: Counts, term: Counts) -> Counts:
    """Genes of the top list that are in the set: int64 [tests]."""
    n_terms, shared = len(sets.source), np.zeros(len(row), dtype=np.int64)
    for first in range(0, len(lists.unit), _UNITS_AT_ONCE):
        here = np.flatnonzero((row >= first) & (row < first + _UNITS_AT_ONCE))
        overlap = (lists.matrix[first : first + _UNITS_AT_ONCE] @ sets.matrix).tocoo()
        key = (first + overlap.row.astype(np.int64)) * n_terms + overlap.col
        order = np.argsort(key)
        key, count = np.append(key[order], -1), np.append(overlap.data[order], 0)
        wanted = row[here] * n_terms + term[here]
        at = np.searchsorted(key[:-1], wanted)
        shared[here] = np.where(key[at] == wanted, count[at], 0)
    return shared


def matched(lists: GeneLists, sets: Sets, tests: Enrichment) -> Floats:
    """p of some tests where a set's genes are drawn within each bin."""
    from sae_genomics.kernels.sample_sums import upper_tails

    n_bins = int(sets.bins.max(initial=-1)) + 1
    n_genes = len(sets.bins)
    in_bin = sparse.csr_matrix((np.ones(n_genes), (sets.bins, np.arange(n_genes))), shape=(n_bins, n_genes))
    by_term, sizes = sets.matrix.T.tocsr().astype(np.float64), in_bin @ sets.universe
    p, source = np.empty(len(tests.row)), sets.source[tests.term]
    for number in np.unique(source).tolist():
        for first in range(0, len(lists.unit), _UNITS_AT_ONCE):
            here = np.flatnonzero((source == number) & (tests.row >= first) & (tests.row < first + _UNITS_AT_ONCE))
            if not len(here):
                continue
            units, row = np.unique(tests.row[here], return_inverse=True)
            terms, term = np.unique(tests.term[here], return_inverse=True)
            scores = lists.ranking.of(units).among(sets.universe[:, number])
            drawn = (by_term[terms] @ in_bin.T).toarray().astype(np.int64)
            total = _sums(scores, by_term[terms], drawn.sum(axis=1))[term, row]
            populations = scores.nodes_by_bin(sizes[:, number].astype(np.int64), sets.bins)
            p[here] = upper_tails(populations, Samples(row.astype(np.int64), term.astype(np.int64), total, drawn))
    return p


SAVAGE = EnrichmentTest(
    name="savage",
    description="sum of Savage scores over the whole ranking",
    inference=Inference(
        "one gene of the background",
        "the genes of the set (n_term) among all genes of the background (n_background), by their rank in the feature",
        "the set's genes are drawn at random from the background (double saddlepoint formula)",
    ),
    run=run,
    reads="ranking",
    matched=matched,
)
