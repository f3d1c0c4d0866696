"""A batch's rows into a window on a CPU, in one pass over them: copied, their peaks found, the finite ones added up.

For numbers that are stored as they are computed. torch needs five passes, and in bfloat16 slow ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import kernel
from sae_genomics.kernels.plain import scatter_rows as plain

_BLOCK = 64  # rows added up in float32 before they are in float64
# a number's bits, as torch and as NumPy name them
_BITS = {torch.float32: (torch.int32, np.uint32), torch.bfloat16: (torch.int16, np.uint16)}


def takes(x: Tensor, rows: Tensor) -> bool:
    """Whether `scatter_rows` can put these activations into these rows."""
    return rows.device.type == "cpu" and x.dtype == rows.dtype and x.dtype in _BITS


@instead_of(plain.scatter_rows)
def scatter_rows(
    x: Tensor, index: npt.NDArray[np.int64], rows: Tensor, peaks: Tensor
) -> tuple[npt.NDArray[np.float64], float]:
    """Copy x to rows[index], and each row's largest absolute value to peaks[index]; NaN where a row has one.

    x: float32 or bfloat16 [n, d_model]. index: int64 [n]. rows: the same dtype [>= n, d_model]. peaks: float32 [>= n].
    Returns the finite rows' sum, float64 [d_model], and the sum of their squared L2 norms.
    """
    total = np.zeros(x.shape[1])
    return total, float(_scatter_rows(_bits(x.contiguous()), index, _bits(rows), peaks.numpy(), total))


def _bits(numbers: Tensor) -> npt.NDArray[Any]:
    signed, unsigned = _BITS[numbers.dtype]
    return numbers.view(signed).numpy().view(unsigned)


@kernel
def _scatter_rows(x: Any, index: Any, rows: Any, peaks: Any, total: Any) -> Any:
    """x, rows: the numbers' bits, uint32 of float32, or uint16 of bfloat16, which are the upper halves of floats.

    All bits but the first are ordered as absolute values are, and NaN behind infinity.
    """
    n, width = x.shape
    shift = np.uint32(32 - 8 * x.itemsize)
    bits, block = np.empty(width, np.uint32), np.zeros(width, np.float32)
    values, peak_bits = bits.view(np.float32), peaks.view(np.uint32)
    squared = 0.0
    for i in range(n):
        row, line = rows[index[i]], x[i]
        top = np.uint32(0)
        for j in range(width):
            row[j] = line[j]
            bits[j] = np.uint32(line[j]) << shift
            top = max(top, bits[j] & np.uint32(0x7FFFFFFF))
        peak_bits[index[i]] = top
        if top < np.uint32(0x7F800000):
            squares = np.float32(0)
            for j in range(width):
                block[j] += values[j]
                squares += values[j] * values[j]
            squared += squares
        if (i + 1) % _BLOCK == 0 or i + 1 == n:
            for j in range(width):
                total[j] += block[j]
                block[j] = 0
    return squared
