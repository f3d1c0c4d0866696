"""Products of chosen pairs of rows, without a copy of what is chosen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, kernel
from sae_genomics.kernels.plain import dots as plain

Float32 = npt.NDArray[np.float32]

_PAIRS = 1 << 12


@instead_of(plain.pair_values)
def pair_values(
    x: Float32, weight: Float32, bias: Float32, rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer]
) -> Float32:
    """x[rows] . weight[columns] + bias[columns], float32 [n]; shapes stand in the plain version."""
    out = np.empty(len(rows), np.float32)
    each_range(len(rows), _PAIRS, lambda start, stop: _pair_values(x, weight, bias, rows, columns, start, stop, out))
    return out


@kernel
def _pair_values(x, weight, bias, rows, columns, start, stop, out):  # type: ignore[no-untyped-def]
    for entry in range(start, stop):
        row, column = rows[entry], columns[entry]
        total = np.float32(0)
        for i in range(x.shape[1]):
            total += x[row, i] * weight[column, i]
        out[entry] = total + bias[column]
