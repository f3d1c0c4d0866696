"""A batch's rows into a window, in torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def scatter_rows(
    x: Tensor, index: npt.NDArray[np.int64], rows: Tensor, peaks: Tensor
) -> tuple[npt.NDArray[np.float64], float]:
    """Copy x to rows[index], and each row's largest absolute value to peaks[index]; NaN where a row has one.

    x: float32 or bfloat16 [n, d_model]. index: int64 [n]. rows: the same dtype [>= n, d_model]. peaks: float32 [>= n].
    Returns the finite rows' sum, float64 [d_model], and the sum of their squared L2 norms.
    """
    at = torch.from_numpy(index)
    rows.index_copy_(0, at, x)
    largest = torch.maximum(x.amax(dim=1), -x.amin(dim=1)).float()
    peaks.index_copy_(0, at, largest)
    finite = x[torch.isfinite(largest)].double()
    return finite.sum(dim=0).numpy(), float(finite.square().sum())
