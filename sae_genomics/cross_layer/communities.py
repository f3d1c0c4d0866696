"""Groups of features in a graph of pairs: Leiden at several resolutions, and what samples of the items agree on.

For each resolution Leiden is run on the pairs that remain in each sample of the items, with a seed of its own. The share of samples in which two features are together
weighs a second graph (shares below AGREE are left out), and Leiden on that gives the groups (consensus clustering). Of the
resolutions the one is taken whose samples agree best with its groups (mean adjusted Rand index).

Traag, Waltman and van Eck 2019, Sci. Rep. 9:5233. Lancichinetti and Fortunato 2012, Sci. Rep. 2:336.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import igraph
import leidenalg
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix
from sklearn.metrics import adjusted_rand_score

from sae_genomics.progress import stop_point

LEAST_SIZE = 3
AGREE = 0.5

Int64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """label: int64 [nodes], from 0, the largest first; -1 for nodes of groups smaller than LEAST_SIZE. resolution: of Leiden.

    agreement: mean adjusted Rand index of the samples with the groups. consensus: float64 [nodes], mean share of samples with another node of the group.
    """

    label: Int64
    resolution: float
    agreement: float
    consensus: Floats


def leiden(n: int, first: Int64, second: Int64, weight: Floats, resolution: float, seed: int) -> Int64:
    """Groups of n nodes in a graph of weighted pairs: int64 [n]."""
    graph = igraph.Graph(n=n, edges=np.column_stack([first, second]).tolist())
    found = leidenalg.find_partition(
        graph,
        leidenalg.RBConfigurationVertexPartition,
        weights=weight.tolist(),
        resolution_parameter=resolution,
        seed=seed,
        n_iterations=2,
    )
    return np.asarray(found.membership, dtype=np.int64)


def modularity(n: int, first: Int64, second: Int64, weight: Floats, label: Int64) -> float:
    """Share of the weight within groups, less what chance gives with the same weight of every node."""
    total = weight.sum()
    if total <= 0:
        return 0.0
    strength = np.bincount(first, weight, n) + np.bincount(second, weight, n)
    of_group = np.bincount(label, strength)
    inside = weight[label[first] == label[second]].sum()
    return float(inside / total - np.square(of_group / (2 * total)).sum())


def consensus_groups(
    n: int,
    pairs: tuple[Int64, Int64],
    weight: Floats,
    kept: npt.NDArray[np.bool_],
    resolutions: Sequence[float],
    seed: int,
) -> Groups:
    """See the module's text. pairs: nodes of each pair. kept: bool [samples, pairs], which pairs remain in each sample."""
    first, second = pairs
    best: Groups | None = None
    for resolution in resolutions:
        stop_point()
        labels = np.array(
            [
                leiden(n, first[use], second[use], weight[use], resolution, seed + number)
                for number, use in enumerate(kept)
            ]
        )
        share = _shares(labels)
        upper = coo_matrix(share)
        used = (upper.row < upper.col) & (upper.data >= AGREE)
        found = leiden(n, upper.row[used], upper.col[used], upper.data[used].astype(float), resolution, seed)
        agreement = float(np.mean([adjusted_rand_score(found, label) for label in labels]))
        if best is None or agreement > best.agreement:
            best = Groups(found, resolution, agreement, _consensus(share, found))
    assert best is not None
    return Groups(by_size(best.label), best.resolution, best.agreement, best.consensus)


def _shares(labels: npt.NDArray[np.int64]) -> csr_matrix:
    """Share of samples in which two nodes are together: float64 [nodes, nodes], sparse."""
    samples, n = labels.shape
    column = labels + np.concatenate([[0], np.cumsum(labels.max(axis=1) + 1)[:-1]])[:, None]
    member = csr_matrix((np.ones(labels.size), (np.tile(np.arange(n), samples), column.ravel())))
    return csr_matrix(member @ member.T / samples)


def _consensus(share: csr_matrix, label: Int64) -> Floats:
    n = len(label)
    member = csr_matrix((np.ones(n), (np.arange(n), label)))
    inside = np.asarray((share @ member)[np.arange(n), label]).ravel() - 1.0  # a node is always with itself
    size = np.bincount(label)[label]
    found: Floats = inside / np.maximum(size - 1, 1)
    return found


def by_size(label: Int64) -> Int64:
    """The largest group is 0; -1 for those smaller than LEAST_SIZE."""
    size = np.bincount(label, minlength=1)
    order = np.argsort(-size, kind="stable")
    number = np.empty(len(size), dtype=np.int64)
    number[order] = np.where(size[order] >= LEAST_SIZE, np.arange(len(size)), -1)
    return number[label]
