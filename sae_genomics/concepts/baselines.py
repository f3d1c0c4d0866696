"""What needs no model: composition and position of the same rows, fitted and scored as the activations are.

composition
- items with few kinds of units (amino acids): the share of each unit, and log length;
- items with many (genes): log(1 + 10,000 x the unit's share of the counts), as its N_COMPONENTS strongest directions, log length and log depth;
- tokens with few kinds of units: which unit it is, shares of units within WINDOW to either side, and log length of the item;
- tokens with many: the unit's expression (log count, log share of the item's counts), log length and log depth of the item.
  Which gene it is says nothing here: held-out genes are other genes.

position, of tokens: which of N_PARTS equal parts of the item the token is in, and how far from its beginning. Items have none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.concepts.concept import Bools, Ints
from sae_genomics.concepts.rows import MOST_UNITS, ItemRows, TokenRows

N_COMPONENTS = 32
N_PARTS = 20
_PER = 1e4
Floats = npt.NDArray[np.float64]


def item_composition(items: ItemRows, train: Bools) -> Floats:
    """float64 [items, columns]. train: items that the directions of expression are found in."""
    extent = np.column_stack([np.log1p(items.length), np.log1p(items.depth)])
    weights = items.unit_weights
    if weights.shape[1] <= MOST_UNITS:
        return np.column_stack([_shares(weights).toarray(), extent[:, :1]])
    logged = _shares(weights)
    logged.data = np.log1p(_PER * logged.data)
    return np.column_stack([_strongest(logged, train), extent])


def _shares(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    total = np.asarray(weights.sum(axis=1)).ravel()
    return sparse.csr_matrix(sparse.diags(1 / np.where(total > 0, total, 1)) @ weights)


def _strongest(values: sparse.csr_matrix, train: Bools) -> Floats:
    """The rows along the first right singular vectors of the training rows, their mean taken off: [rows, components]."""
    from scipy.sparse.linalg import LinearOperator, svds

    rows = values[np.flatnonzero(train)] if train.any() else values
    n = min(N_COMPONENTS, min(rows.shape) - 1)
    if n < 1:
        return np.zeros((values.shape[0], 0))
    mean = np.asarray(rows.mean(axis=0)).ravel()
    ones = np.ones(rows.shape[0])
    centred = LinearOperator(
        rows.shape,
        matvec=lambda v: rows @ v.ravel() - mean @ v.ravel(),
        rmatvec=lambda u: rows.T @ u.ravel() - mean * (ones @ u.ravel()),
        dtype=np.float64,
    )
    _, _, axes = svds(centred, k=n, random_state=0)
    along: Floats = values @ axes.T - mean @ axes.T
    return along


def token_composition(tokens: TokenRows, rows: Ints) -> Floats:
    """float64 [rows, columns]."""
    length, depth = np.log1p(tokens.length[rows]), np.log1p(tokens.depth[rows])
    if tokens.window is not None:
        which = np.zeros((len(rows), tokens.window.shape[1]))
        which[np.arange(len(rows)), tokens.unit[rows]] = 1.0
        return np.column_stack([which, tokens.window[rows], length])
    weight = tokens.weight[rows]
    share = np.log(np.maximum(weight, 1e-9) / np.maximum(tokens.depth[rows], 1e-9))
    return np.column_stack([np.log1p(weight), share, length, depth])


def token_position(tokens: TokenRows, rows: Ints) -> Floats:
    """float64 [rows, N_PARTS + 2]."""
    part = tokens.part[rows]
    bins = np.zeros((len(rows), N_PARTS))
    bins[np.arange(len(rows)), np.clip((part * N_PARTS).astype(np.int64), 0, N_PARTS - 1)] = 1.0
    return np.column_stack([bins, part, np.log1p(tokens.position[rows])])
