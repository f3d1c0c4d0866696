"""Products of chosen pairs of rows, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

_ELEMENTS = 1 << 22  # numbers that are copied at once from each of two arrays


def pair_values(
    x: Float32, weight: Float32, bias: Float32, rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer]
) -> Float32:
    """x[rows] . weight[columns] + bias[columns], float32 [n].

    x: float32 [tokens, d]. weight: float32 [d_out, d]. bias: float32 [d_out]. rows, columns: integers [n].
    """
    out = bias[columns]
    at_once = max(1, _ELEMENTS // max(1, x.shape[1]))
    for start in range(0, len(rows), at_once):
        part = slice(start, start + at_once)
        out[part] += np.einsum("nd,nd->n", x[rows[part]], weight[columns[part]])
    return out
