"""G of pairs of columns of two tables of zeros and ones, over the same items.

With O the items that have both, less those that do not count, E what chance gives, and the four cells of the table of two columns:

    G = 2 sum over the four cells of O ln(O / E), with the sign of O - E
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

from sae_genomics.kernels.arrays import Pairs

Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]


def pair_g(
    tables: tuple[Words, Words], pairs: Pairs, sums: tuple[Float64, Float64], n: int, least: float
) -> tuple[Int32, Float64]:
    """O and G of every pair: int32 and float64 [pairs].

    tables: uint64 [columns, words], the items of each column as bits. sums: float64 [columns], items that count for either column. n: items.
    least: a pair whose G is below may have -inf in its place.
    """
    row = np.repeat(np.arange(pairs.row, pairs.row + len(pairs.ptr) - 1), np.diff(pairs.ptr))
    left, right = (np.unpackbits(each.view(np.uint8), axis=1).astype(np.float32) for each in tables)
    both = np.einsum("ij,ij->i", left[row], right[pairs.column]).astype(np.int32)
    if len(pairs.less):
        both -= pairs.less
    first, second = sums[0][row], sums[1][pairs.column]
    return both, signed_g(both.astype(np.float64), pairs.expected.astype(np.float64), first, second, n)


def signed_g(observed: Float64, expected: Float64, first: Float64, second: Float64, n: float | Float64) -> Float64:
    """G with the sign of observed - expected. first, second: items high in either feature; n: items. Arrays broadcast."""
    total = np.zeros(np.broadcast(observed, expected).shape)
    shift = observed - expected
    for seen, sign in (
        (observed, 1.0),
        (first - observed, -1.0),
        (second - observed, -1.0),
        (n - first - second + observed, 1.0),
    ):
        seen = np.maximum(seen, 0.0)
        total += xlogy(seen, np.maximum(seen, 1e-300) / np.maximum(seen - sign * shift, 1e-9))
    signed: Float64 = np.sign(shift) * 2 * np.maximum(total, 0.0)
    return signed
