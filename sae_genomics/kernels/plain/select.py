"""Choosing the largest pre-activations of each token, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def top_k(
    hidden: Float32,
    weight: Float32,
    k: int,
    indices: Int32,
    values: Float32,
    *,
    among: Int32 | None = None,
    rectify: bool = True,
) -> None:
    """For each row the k columns with the largest hidden x weight, and hidden there.

    hidden: float32 [rows, columns], pre-activations. weight: float32 [columns], positive (decoder norms).
    indices: int32 [rows, k], written; columns ascending. values: float32 [rows, k], written.
    among: int32 [n >= k], ascending, the columns to choose from; default: all. rectify: negative values become zero.
    Of equal ones the lower columns are taken. A row with fewer than k numbers (NaN elsewhere) gives all of them, then
    repeats the first column with value NaN.
    """
    columns = np.arange(hidden.shape[1], dtype=np.int32) if among is None or not len(among) else among
    score = hidden[:, columns] * weight[columns]
    least = -np.partition(-score, k - 1, axis=1)[:, k - 1 : k]  # NaN counts as less than every number
    chosen, equal = score > least, score == least
    chosen |= equal & (np.cumsum(equal, axis=1) <= k - chosen.sum(axis=1, keepdims=True))
    chosen |= np.isnan(least) & ~np.isnan(score)
    indices[:], values[:] = columns[0], np.nan
    row, column = np.nonzero(chosen)
    rank = (np.cumsum(chosen, axis=1) - 1)[row, column]
    value = hidden[row, columns[column]]
    indices[row, rank] = columns[column]
    values[row, rank] = np.maximum(value, 0) if rectify else value


def above(hidden: Float32, threshold: Float32) -> tuple[npt.NDArray[np.int64], Int32, Float32]:
    """Entries of hidden, float32 [rows, columns], above their column's threshold, float32 [columns].

    Returns row int64 [n], column int32 [n] and value float32 [n]; rows ascending, columns ascending within a row.
    """
    row, column = np.nonzero(hidden > threshold)
    return row, column.astype(np.int32), hidden[row, column]
