"""Adam over rows, in NumPy.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

(Kingma and Ba 2015). Rows without a gradient follow the same equations with g = 0, as a dense optimiser would.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


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
    has_gradient = np.diff(indptr)[:, None] > 0
    g = np.where(has_gradient, gradient, np.float32(0)) * np.float32(scale)
    exp_avg[:] = BETA1 * exp_avg + (1 - BETA1) * g
    exp_avg_sq[:] = BETA2 * exp_avg_sq + (1 - BETA2) * np.square(g)
    denominator = np.sqrt(exp_avg_sq / (1 - BETA2**step)) + EPSILON
    parameter -= np.float32(lr / (1 - BETA1**step)) * exp_avg / denominator
