"""Products of chosen pairs of rows, and norms of rows, without a copy of what is chosen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.compiled import each_range, kernel

Float32 = npt.NDArray[np.float32]


def pair_values(
    x: Float32, weight: Float32, bias: Float32, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int32]
) -> Float32:
    """x[rows] . weight[columns] + bias[columns], float32 [n].

    x: float32 [tokens, d]. weight: float32 [d_out, d]. bias: float32 [d_out]. rows: int64 [n]. columns: int32 [n].
    """
    out = np.empty(len(rows), np.float32)
    each_range(len(rows), 1 << 12, lambda start, stop: _pair_values(x, weight, bias, rows, columns, start, stop, out))
    return out


@kernel
def _pair_values(x, weight, bias, rows, columns, start, stop, out):  # type: ignore[no-untyped-def]
    for entry in range(start, stop):
        row, column = rows[entry], columns[entry]
        total = np.float32(0)
        for i in range(x.shape[1]):
            total += x[row, i] * weight[column, i]
        out[entry] = total + bias[column]


def row_norms(rows: Float32) -> Float32:
    """L2 norms of the rows of a float32 [n, d] array."""
    out = np.empty(len(rows), np.float32)
    each_range(len(rows), 512, lambda start, stop: _row_norms(rows, start, stop, out))
    return out


@kernel
def _row_norms(rows, start, stop, out):  # type: ignore[no-untyped-def]
    for row in range(start, stop):
        total = np.float32(0)
        for i in range(rows.shape[1]):
            total += rows[row, i] * rows[row, i]
        out[row] = np.sqrt(total)
