"""A batch's rows into a window on a CPU, in one pass over them: copied, their peaks found, the finite ones added up.

For numbers that are stored as they are computed. torch needs five passes, and in bfloat16 slow ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.activations.dtypes import as_disk
from sae_genomics.compiled import kernel

_BLOCK = 64  # rows added up in float32 before they are in float64


def takes(x: Tensor, rows: Tensor) -> bool:
    """Whether `lay_down` can put these activations into these rows."""
    return rows.device.type == "cpu" and x.dtype == rows.dtype and x.dtype in (torch.float32, torch.bfloat16)


def lay_down(
    x: Tensor, places: npt.NDArray[np.int64], rows: Tensor, peaks: Tensor
) -> tuple[npt.NDArray[np.float64], float]:
    """Copy x to rows[places], and each row's largest absolute value to peaks[places]; NaN where a row has one.

    x: float32 or bfloat16 [n, d_model]. rows: the same dtype [>= n, d_model]. peaks: float32 [>= n].
    Returns the finite rows' sum, float64 [d_model], and the sum of their squared L2 norms.
    """
    x, total = x.contiguous(), np.zeros(x.shape[1])
    if x.dtype == torch.float32:
        values = x.numpy()
        squared = _floats(values, values.view(np.int32), places, rows.numpy(), peaks.numpy(), total)
    else:
        squared = _halves(as_disk(x), places, as_disk(rows), peaks.numpy(), total)
    return total, float(squared)


@kernel
def _floats(x: Any, bits: Any, places: Any, rows: Any, peaks: Any, total: Any) -> Any:
    """bits: x as int32, of which all but the first are ordered as absolute values are, and NaN behind infinity."""
    n, width = x.shape
    block = np.zeros(width, np.float32)
    squared = 0.0
    peak_bits = peaks.view(np.int32)
    for i in range(n):
        row, line = rows[places[i]], x[i]
        top = np.int32(0)
        for j in range(width):
            row[j] = line[j]
            top = max(top, bits[i, j] & np.int32(0x7FFFFFFF))
        peak_bits[places[i]] = top
        if top < np.int32(0x7F800000):
            squares = np.float32(0)
            for j in range(width):
                block[j] += line[j]
                squares += line[j] * line[j]
            squared += squares
        if (i + 1) % _BLOCK == 0 or i + 1 == n:
            for j in range(width):
                total[j] += block[j]
                block[j] = 0
    return squared


@kernel
def _halves(x: Any, places: Any, rows: Any, peaks: Any, total: Any) -> Any:
    """The same for bfloat16 as uint16: the upper halves of floats."""
    n, width = x.shape
    block = np.zeros(width, np.float32)
    words = np.empty(width, np.uint32)
    values = words.view(np.float32)
    squared = 0.0
    peak_bits = peaks.view(np.uint32)
    for i in range(n):
        row, line = rows[places[i]], x[i]
        top = np.uint16(0)
        for j in range(width):
            row[j] = line[j]
            top = max(top, line[j] & np.uint16(0x7FFF))
        peak_bits[places[i]] = np.uint32(top) << np.uint32(16)
        if top < np.uint16(0x7F80):
            for j in range(width):
                words[j] = np.uint32(line[j]) << np.uint32(16)
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
