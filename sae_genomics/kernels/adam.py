"""Adam over all rows in one pass: moments and weights are read and written once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, kernel
from sae_genomics.kernels.plain import adam as plain
from sae_genomics.kernels.plain.adam import BETA1, BETA2, EPSILON

__all__ = ["BETA1", "BETA2", "EPSILON", "adam_rows", "adam_vector"]

Float32 = npt.NDArray[np.float32]

_ROWS = 128


class _Factors(NamedTuple):
    """All float32. scale: of the gradient. size: lr / (1 - b1^t). correction: 1 / sqrt(1 - b2^t). rest1, rest2: 1 - b1, 1 - b2."""

    scale: np.float32
    size: np.float32
    correction: np.float32
    beta1: np.float32
    rest1: np.float32
    beta2: np.float32
    rest2: np.float32
    epsilon: np.float32


@instead_of(plain.adam_rows)
def adam_rows(
    parameter: Float32,
    gradient: Float32,
    exp_avg: Float32,
    exp_avg_sq: Float32,
    indptr: npt.NDArray[np.int64],
    scale: float,
    lr: float,
    step: int,
) -> None:
    """Update parameter, exp_avg and exp_avg_sq, all float32 [rows, d], in place; formula and arguments: the plain version."""
    size, correction = lr / (1 - BETA1**step), 1 / math.sqrt(1 - BETA2**step)
    numbers = scale, size, correction, BETA1, 1 - BETA1, BETA2, 1 - BETA2, EPSILON
    factors = _Factors(*map(np.float32, numbers))
    each_range(
        len(parameter),
        _ROWS,
        lambda start, stop: _adam_rows(parameter, gradient, exp_avg, exp_avg_sq, indptr, factors, start, stop),
    )


@kernel
def _adam_rows(parameter, gradient, exp_avg, exp_avg_sq, indptr, factors, start, stop):  # type: ignore[no-untyped-def]
    scale, size, correction, beta1, rest1, beta2, rest2, epsilon = factors
    for row in range(start, stop):
        if indptr[row] == indptr[row + 1]:
            for i in range(parameter.shape[1]):
                m = beta1 * exp_avg[row, i]
                v = beta2 * exp_avg_sq[row, i]
                exp_avg[row, i] = m
                exp_avg_sq[row, i] = v
                parameter[row, i] -= size * m / (np.sqrt(v) * correction + epsilon)
        else:
            for i in range(parameter.shape[1]):
                g = scale * gradient[row, i]
                m = beta1 * exp_avg[row, i] + rest1 * g
                v = beta2 * exp_avg_sq[row, i] + rest2 * g * g
                exp_avg[row, i] = m
                exp_avg_sq[row, i] = v
                parameter[row, i] -= size * m / (np.sqrt(v) * correction + epsilon)


def adam_vector(
    parameter: Float32, gradient: Float32, exp_avg: Float32, exp_avg_sq: Float32, scale: float, lr: float, step: int
) -> None:
    """The same for a vector, float32 [d]: one row, with a gradient."""
    indptr = np.array([0, 1], np.int64)
    adam_rows(parameter[None], gradient[None], exp_avg[None], exp_avg_sq[None], indptr, scale, lr, step)
