"""A vector as a sum of few decoder directions with weights of at least 0, by orthogonal matching pursuit: plain arrays, all vectors at once.

Of a unit vector v and unit directions d_j: the direction with the largest r . d_j > 0 joins the chosen set S, r = v - sum_S w_j d_j, where
w >= 0 minimises |r|^2; then the next. Share explained = 1 - |r|^2. Weights are not negative because an activation is not.
(Pati, Rezaiifar and Krishnaprasad 1993, Asilomar Conference; with weights of one sign: Bruckstein, Elad and Zibulevsky 2008, IEEE Trans. Inf. Theory 54:4813.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.concepts.resampling import unit_rows

_SWEEPS = 200
_NOTHING = 1e-9  # of correlation, below which no direction brings the sum closer
_AT_ONCE = 1 << 25  # correlations held at once
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """feature: int64 [vectors, k], -1 where no direction helps any more. weight: float64 [vectors, k], all fitted together.

    cosine: float64 [vectors, k], of vector and direction. share: float64 [vectors, k], explained by the first 1 .. k together.
    """

    feature: npt.NDArray[np.int64]
    weight: Float64
    cosine: Float64
    share: Float64


def decompose(vectors: npt.NDArray[np.floating], directions: npt.NDArray[np.floating], k: int) -> Sums:
    """vectors: [vectors, d]; directions: [features, d]; both are brought to unit norm. A direction of norm 0 is never chosen."""
    target, atoms = unit_rows(vectors), unit_rows(directions)
    step = max(1, _AT_ONCE // max(len(atoms), 1))
    parts = [_decompose(target[first : first + step], atoms, k) for first in range(0, len(target), step)]
    if not parts:
        return Sums(np.zeros((0, k), np.int64), *(np.zeros((0, k)) for _ in range(3)))
    return Sums(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("feature", "weight", "cosine", "share"))
    )


def _decompose(target: Float64, atoms: Float64, k: int) -> Sums:
    n, rows = len(target), np.arange(len(target))
    chosen = np.full((n, k), -1, np.int64)
    weight, share, cosines = np.zeros((n, k)), np.zeros((n, k)), np.zeros((n, k))
    cosine = target @ atoms.T
    residual = target.copy()
    for rank in range(k):
        correlation = cosine.copy() if rank == 0 else residual @ atoms.T
        for before in range(rank):
            correlation[
                rows, chosen[:, before]
            ] = -np.inf  # -1 takes the last column, which the vector has no use for any more
        best = correlation.argmax(axis=1)
        helps = correlation[rows, best] > _NOTHING
        if rank:
            helps &= chosen[:, rank - 1] >= 0
        chosen[:, rank] = np.where(helps, best, -1)
        cosines[:, rank] = np.where(helps, cosine[rows, best], 0.0)
        used = chosen[:, : rank + 1] >= 0
        part = atoms[np.maximum(chosen[:, : rank + 1], 0)] * used[..., None]
        weight[:, : rank + 1] = _not_negative(part, cosines[:, : rank + 1] * used, weight[:, : rank + 1])
        residual = target - np.einsum("nk,nkd->nd", weight[:, : rank + 1], part)
        share[:, rank] = 1 - (residual**2).sum(axis=1)
    return Sums(chosen, weight, cosines, share)


def _not_negative(part: Float64, wanted: Float64, weight: Float64) -> Float64:
    """Weights of at least 0 that bring the sum of `part` ([n, k, d], unit rows or 0) nearest: coordinate descent. wanted: [n, k], part . target."""
    gram = np.einsum("nkd,nld->nkl", part, part)
    weight = weight.copy()
    for _ in range(_SWEEPS):
        largest = 0.0
        for column in range(weight.shape[1]):
            gradient = wanted[:, column] - np.einsum("nk,nk->n", gram[:, column], weight)
            new = np.where(gram[:, column, column] > 0, np.maximum(weight[:, column] + gradient, 0.0), 0.0)
            largest = max(largest, float(np.abs(new - weight[:, column]).max(initial=0.0)))
            weight[:, column] = new
        if largest < 1e-10:
            break
    return weight
