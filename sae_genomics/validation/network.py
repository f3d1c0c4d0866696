"""Are a unit's top genes closer to one another in a network than chance gives?

Two answers of chance stand beside the observed number of pairs among the n genes of a list, with degrees d (partners of a gene
within the background) and M pairs in the network.

Configuration model: every pair of the network is cut into two halves, and halves are joined at random. Then the mean is exactly

    E = ((sum d)^2 - sum d^2) / (2 (2 M - 1))                         Newman 2001, Phys. Rev. E 64:026118

Matched genes: each gene of the list is replaced by one that has about as many partners, is detected as often and is expressed as
strongly. This is the null that p rests on: genes that are detected often are studied often, and have more known partners. The few genes
with very many partners have no equals. So a list and its draws are compared by what goes beyond their own degrees,

    z = (k - c E) / sqrt(c E + 1/2)

with k the pairs, E the mean of the configuration model for the genes that were drawn, and c the first draws' pairs over the sum of their E: genes with
very many partners have fewer pairs with one another than halves joined at random, because two genes are a pair once at most.

p from draws (after Besag and Clifford 1991, Biometrika 78:301). After 200, 2,000 and 10,000 draws (`validation.network_draws`), lists that at least ENOUGH draws
have reached stop, with p = (1 + reached) / (1 + draws). P(p <= alpha) <= alpha still holds under the null, for every alpha: let B be the
first of these numbers with alpha (1 + B) > ENOUGH, or else the last. A list that stopped earlier has p > alpha. One that stops
later had fewer than ENOUGH at B. So p <= alpha only where (1 + reached) / (1 + B) <= alpha at B, and B does not depend on the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from sae_genomics.kernels.arrays import Drawing
from sae_genomics.kernels.pairs_drawn import pairs_drawn
from sae_genomics.progress import stop_point
from sae_genomics.validation.interactions import Pairs
from sae_genomics.validation.listed import nested_bins

FIRST_DRAWS, GROWTH, ENOUGH = 200, 10, 10
LEAST_IN_BIN = 20
_DEGREE_PARTS, _DETECTION_PARTS = (
    75,
    5,
)  # at most: few genes have very many partners, and only a fine cut tells them apart
_BLOCK = 2_000  # draws at a time
_ROUNDING = 1e-9  # of the same z by two ways
LEAST_CLUSTER = 3


@dataclass(frozen=True)
class Network:
    """One channel of a network over some genes.

    upper: csr float64 [genes, genes], the score of each pair, once. degree: int64 [genes], partners.
    bins: int64 [genes]: genes of one bin have about as many partners, and are detected and expressed alike.
    """

    upper: sparse.csr_matrix
    degree: npt.NDArray[np.int64]
    bins: npt.NDArray[np.int64]


def network_over(
    pairs: Pairs, place: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64], expression: npt.NDArray[np.float64]
) -> Network:
    """A channel over the genes of a background.

    place: int64 [symbols of the database], position in the background, -1 for a gene that is not there.
    tokens, expression: [genes], see `listed.GeneIndex`.
    """
    first, second = place[pairs.first], place[pairs.second]
    inside = (first >= 0) & (second >= 0) & (first != second)
    low, high = np.minimum(first, second)[inside], np.maximum(first, second)[inside]
    order = np.lexsort((-pairs.score[inside], high, low))  # of several scores of a pair the highest counts
    new = np.append(True, (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0))[: len(order)]
    chosen = order[new]
    n = len(tokens)
    upper = sparse.csr_matrix((pairs.score[inside][chosen], (low[chosen], high[chosen])), shape=(n, n))
    degree = np.bincount(np.concatenate([low[chosen], high[chosen]]), minlength=n).astype(np.int64)
    parts = [max(1, min(_DEGREE_PARTS, n // (LEAST_IN_BIN * _DETECTION_PARTS))), _DETECTION_PARTS, 1]
    return Network(upper, degree, nested_bins([degree, tokens, expression], parts, LEAST_IN_BIN))


def expected_by_degree(lists: sparse.csr_matrix, network: Network) -> npt.NDArray[np.float64]:
    """Mean number of pairs within each list in the configuration model: float64 [lists]."""
    degree = network.degree.astype(np.float64)
    sums, squares = lists @ degree, lists @ degree**2
    halves = degree.sum()
    expected: npt.NDArray[np.float64] = (sums**2 - squares) / (2 * (halves - 1)) if halves else np.zeros(len(sums))
    return expected


@dataclass(frozen=True)
class Drawn:
    """Lists beside matched draws. expected: c E of the list. n_draws: int64, draws made. p_value: all [lists]."""

    expected: npt.NDArray[np.float64]
    n_draws: npt.NDArray[np.int64]
    p_value: npt.NDArray[np.float64]


def beside_draws(
    lists: sparse.csr_matrix, observed: npt.NDArray[np.int64], network: Network, n_draws: int, seed: Sequence[int]
) -> Drawn:
    """Each list beside draws of matched genes. observed: int64 [lists], pairs within each. n_draws: the most. seed: whole numbers."""
    reached = np.zeros(len(observed), dtype=np.int64)
    expected, share = expected_by_degree(lists, network), np.ones(len(observed))
    per_product = 1 / max(int(network.degree.sum()) - 1, 1)
    made = np.zeros(len(observed), dtype=np.int64)
    active, done, level = np.arange(len(observed)), 0, min(FIRST_DRAWS, n_draws)
    start = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]) >> 1
    while len(active):
        mine = _drawing(lists[active], active, network)
        while done < level:
            stop_point()
            size = min(_BLOCK, level - done)
            counts, products = pairs_drawn(mine, done, done + size, start)
            by_degree = products * per_product
            if not done:
                sums = by_degree.sum(axis=0)
                share = np.divide(counts.sum(axis=0), sums, out=share, where=sums > 0)
            z = _beyond_degrees(observed[active], share[active] * expected[active])
            reached[active] += (_beyond_degrees(counts, share[active] * by_degree) >= z - _ROUNDING).sum(axis=0)
            done += size
        made[active] = done
        if done >= n_draws:
            break
        active = active[reached[active] < ENOUGH]
        level = min(level * GROWTH, n_draws)
    return Drawn(share * expected, made, (1 + reached) / (1 + made))


def _beyond_degrees(pairs: npt.NDArray[np.integer], expected: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    z: npt.NDArray[np.float64] = (pairs - expected) / np.sqrt(expected + 0.5)
    return z


def _drawing(lists: sparse.csr_matrix, key: npt.NDArray[np.int64], network: Network) -> Drawing:
    order = np.argsort(network.bins, kind="stable")
    bin_ptr = np.concatenate([[0], np.cumsum(np.bincount(network.bins))])
    arrays = (
        lists.indptr, lists.indices, key, network.bins, bin_ptr, order, network.upper.indptr, network.upper.indices,
        network.degree,
    )  # fmt: skip
    return Drawing(*(each.astype(np.int64) for each in arrays))


@dataclass(frozen=True)
class Within:
    """Pairs of a network within lists. row: index of the list. first, second: positions of genes. score: all [pairs], by row."""

    row: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]


def edges_within(lists: sparse.csr_matrix, upper: sparse.csr_matrix) -> Within:
    """Every pair of the network whose two genes stand in one list.

    Every listed gene brings its partners; those that stand in its list stay.
    """
    n_genes = upper.shape[0]
    row = np.repeat(np.arange(lists.shape[0], dtype=np.int64), np.diff(lists.indptr))
    gene = lists.indices.astype(np.int64)
    n_partners = np.diff(upper.indptr)[gene].astype(np.int64)
    begin = np.cumsum(n_partners) - n_partners
    entry = np.repeat(upper.indptr[gene] - begin, n_partners) + np.arange(int(n_partners.sum()))
    of_row, partner = np.repeat(row, n_partners), upper.indices[entry].astype(np.int64)
    inside = np.isin(of_row * n_genes + partner, row * n_genes + gene)
    return Within(of_row[inside], np.repeat(gene, n_partners)[inside], partner[inside], upper.data[entry[inside]])


@dataclass(frozen=True)
class Clusters:
    """Genes that pairs connect, within each list: groups of at least LEAST_CLUSTER.

    row, label, gene: [genes in groups], ordered by list, then by size of the group, larger first. label: the group's number.
    """

    row: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    gene: npt.NDArray[np.int64]


def clusters_of(within: Within, n_genes: int) -> Clusters:
    """The connected components of the pairs within each list, as one graph whose nodes are a list's genes."""
    ends = np.concatenate([within.row * n_genes + within.first, within.row * n_genes + within.second])
    nodes, number = np.unique(ends, return_inverse=True)
    first, second = np.split(number, 2)
    graph = sparse.coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(len(nodes), len(nodes)))
    label = csgraph.connected_components(graph, directed=False)[1].astype(np.int64) if len(nodes) else nodes
    size = np.bincount(label, minlength=1)[label] if len(nodes) else nodes
    order = np.lexsort((nodes, label, -size, nodes // n_genes))
    order = order[size[order] >= LEAST_CLUSTER]
    return Clusters(nodes[order] // n_genes, label[order], nodes[order] % n_genes)
