"""The coordinates that concepts are fitted in: scaled, and rotated to principal components.

x' = V' ((x - mean) / deviation), with mean, deviation and V from training rows alone. With every component kept, the rotation
changes neither distances nor the fit; it makes the columns uncorrelated, which the solver is fast for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
_LEAST_SHARE = 1e-6  # of the largest deviation: a coordinate that does not vary tells nothing


_AT_ONCE = 8192  # rows that are held in float64


def _blocks(x: Array) -> Iterator[npt.NDArray[np.float64]]:
    return (x[start : start + _AT_ONCE].astype(np.float64) for start in range(0, len(x), _AT_ONCE))


@dataclass(frozen=True)
class Space:
    """mean, deviation: float64 [d]. axes: float64 [d, components], orthonormal columns."""

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]

    @staticmethod
    def of(x: Array, components: int | None = None) -> Space:
        """From training rows [n, d]. components: how many are kept; None: all of them."""
        n = max(len(x), 1)
        mean = sum((block.sum(axis=0) for block in _blocks(x)), np.zeros(x.shape[1])) / n
        spread = np.zeros((x.shape[1], x.shape[1]))
        for block in _blocks(x):
            block -= mean
            spread += block.T @ block
        deviation = np.sqrt(np.diag(spread) / n)
        floor = _LEAST_SHARE * max(float(deviation.max(initial=0.0)), 1e-30)
        deviation = np.where(deviation > floor, deviation, np.inf)
        _, axes = np.linalg.eigh(spread / np.outer(deviation, deviation))
        kept = min(components or axes.shape[1], axes.shape[1])
        return Space(mean, deviation, np.ascontiguousarray(axes[:, ::-1][:, :kept]))

    def place(self, x: Array, dtype: npt.DTypeLike = np.float32) -> Array:
        """x' of rows [n, d]: [n, components]."""
        placed = np.empty((len(x), self.axes.shape[1]), dtype)
        for start, block in zip(range(0, len(x), _AT_ONCE), _blocks(x), strict=True):
            placed[start : start + len(block)] = ((block - self.mean) / self.deviation) @ self.axes
        return placed

    def directions(self, weights: Array) -> npt.NDArray[np.float32]:
        """Weights [components, n] as unit vectors of activation space: float32 [n, d]. Those without length stay zeros."""
        vectors = ((self.axes @ np.asarray(weights, np.float64)) / self.deviation[:, None]).T
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0).astype(np.float32)

    def direction(self, weights: Array) -> tuple[npt.NDArray[np.float64], float]:
        """Weights [components] as a vector v [d] of activation space, and the offset c: weights . x' = v . x + c."""
        vector = (self.axes @ np.asarray(weights, np.float64)) / self.deviation
        return vector, -float(vector @ self.mean)
