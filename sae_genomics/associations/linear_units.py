"""Units that are linear in the activations: raw neurons, and components found in them.

A component's value of a row x is y = d . (x - c), standardised with mean and standard deviation over training cells' gene
tokens: z = (y - mean) / std. Its two signs are two units, because the sign of a direction is arbitrary and a feature is one-sided:

    unit 2i      max(z_i, 0)
    unit 2i + 1  max(-z_i, 0)

Raw neurons are the case where the directions are the axes: no product is made for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


class Moments:
    """Mean and standard deviation of each column over rows given block by block (Chan, Golub and LeVeque 1983)."""

    def __init__(self, n_columns: int):
        self.n = 0
        self.mean = np.zeros(n_columns)
        self._squares = np.zeros(n_columns)

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """rows: float32 [n, columns]."""
        if not len(rows):
            return
        mean = rows.mean(axis=0, dtype=np.float64)
        squares = np.square(rows - mean.astype(np.float32)).sum(axis=0, dtype=np.float64)
        delta = mean - self.mean
        n = self.n + len(rows)
        self.mean += delta * (len(rows) / n)
        self._squares += squares + np.square(delta) * (self.n * len(rows) / n)
        self.n = n

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Population standard deviation."""
        return np.sqrt(self._squares / max(self.n, 1))


@dataclass(frozen=True)
class LinearUnits:
    """Components of the activations, two units each.

    mean: float32 [n], of the projections. inverse_std: float32 [n]; 0 for a component without spread, which is never active.
    center: float32 [d_model], c above. directions: float32 [n, d_model], d above. Both None for raw neurons.
    """

    mean: npt.NDArray[np.float32]
    inverse_std: npt.NDArray[np.float32]
    center: npt.NDArray[np.float32] | None = None
    directions: npt.NDArray[np.float32] | None = None

    @property
    def n_components(self) -> int:
        return len(self.mean)

    @property
    def n_units(self) -> int:
        """Both signs."""
        return 2 * len(self.mean)

    @property
    def names(self) -> npt.NDArray[np.object_]:
        """A component's number and the sign: `0+`, `0-`, `1+`, …"""
        return np.array([f"{number}{sign}" for number in range(self.n_components) for sign in "+-"], dtype=object)

    def project(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [T, d_model] -> float32 [T, n], not standardised yet."""
        if self.directions is None or self.center is None:
            return x
        product: npt.NDArray[np.float32] = (x - self.center) @ self.directions.T
        return product

    @staticmethod
    def of_neurons(moments: Moments) -> LinearUnits:
        """The activations themselves."""
        return LinearUnits(moments.mean.astype(np.float32), _inverse(moments.std))

    @staticmethod
    def of_directions(
        directions: npt.NDArray[np.floating], center: npt.NDArray[np.floating], rows: npt.NDArray[np.float32]
    ) -> LinearUnits:
        """Along some directions, standardised over `rows`: float32 [n, d_model], at least one."""
        n = len(directions)
        raw = LinearUnits(
            np.zeros(n, np.float32), np.ones(n, np.float32), center.astype(np.float32), directions.astype(np.float32)
        )
        moments = Moments(n)
        moments.add(raw.project(rows))
        return LinearUnits(moments.mean.astype(np.float32), _inverse(moments.std), raw.center, raw.directions)

    @staticmethod
    def none(d_model: int) -> LinearUnits:
        """Of activations in which nothing varies."""
        nothing = np.zeros(0, np.float32)
        return LinearUnits(nothing, nothing, np.zeros(d_model, np.float32), np.zeros((0, d_model), np.float32))


def _inverse(std: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        return np.where(std > 0, 1.0 / std, 0.0).astype(np.float32)
