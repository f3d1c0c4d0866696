"""Adam over all rows in one pass, moments and weights read and written once.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

(Kingma and Ba 2015). Rows without a gradient follow the same equations with g = 0, as a dense optimiser would.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.compiled import each_range, kernel

Float32 = npt.NDArray[np.float32]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
_LATENTS = 128


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
    """Update parameter, exp_avg and exp_avg_sq, all float32 [rows, d], in place.

    indptr: int64 [rows + 1]; a row whose two bounds are equal has no gradient, and what stands in `gradient` there is not read.
    scale: factor on the gradient (clipping). step: number of this update, from 1.
    """
    size = lr / (1 - BETA1**step)
    correction = 1 / math.sqrt(1 - BETA2**step)
    each_range(
        parameter.shape[0],
        _LATENTS,
        lambda start, stop: _adam_range(
            parameter, gradient, exp_avg, exp_avg_sq, indptr, np.float32(scale), np.float32(size), np.float32(correction),
            np.float32(BETA1), np.float32(1 - BETA1), np.float32(BETA2), np.float32(1 - BETA2), np.float32(EPSILON), start, stop,
        ),
    )  # fmt: skip


@kernel
def _adam_range(  # type: ignore[no-untyped-def]
    parameter, gradient, exp_avg, exp_avg_sq, indptr, scale, size, correction, beta1, rest1, beta2, rest2, epsilon,
    start, stop,
):  # fmt: skip
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
    """The same for a vector, float32 [d]."""
    indptr = np.array([0, 1], np.int64)
    adam_rows(parameter[None], gradient[None], exp_avg[None], exp_avg_sq[None], indptr, scale, lr, step)
