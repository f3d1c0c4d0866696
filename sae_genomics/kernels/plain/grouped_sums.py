"""Sums of rows by their group.

add_rows      sums[g] += x - shift                     for every row x of group g
add_signed    sums[g, 0] += max(z, 0) w                z = (y - mean) inverse_std of every row y of group g, w its weight
              sums[g, 1] += max(-z, 0) w
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.kernels.arrays import Floats, Ints, SignedTotals


def add_rows(
    sums: Floats, counts: Ints, x: npt.NDArray[np.float32], shift: Floats, group: npt.NDArray[np.integer]
) -> float:
    """Add rows to the sums of their groups; returns the sum of the squares of x - shift.

    sums: float64 [groups, columns]. counts: int64 [groups], rows of each. x: float32 [rows, columns]. shift: float64 [columns].
    group: int [rows], 0 and above.
    """
    shifted = x - shift
    present, indicator = _indicator(group)
    sums[present] += indicator @ shifted
    counts[present] += np.diff(indicator.indptr)
    return float(np.vdot(shifted, shifted))


def add_signed(
    totals: SignedTotals, group: npt.NDArray[np.integer], weight: npt.NDArray[np.floating],
    y: npt.NDArray[np.float32], mean: npt.NDArray[np.float32], inverse_std: npt.NDArray[np.float32],
) -> None:  # fmt: skip
    """Add both signs of standardised values to the sums of their groups.

    group: int [rows], -1 for rows that do not count. weight: float [rows]. y: float32 [rows, units]. mean, inverse_std: float32 [units].
    """
    counted = np.flatnonzero(group >= 0)
    present, indicator = _indicator(group[counted])
    z = ((y[counted] - mean) * inverse_std).astype(np.float64)
    w = weight[counted].astype(np.float64)[:, None]
    for sign, part in enumerate((np.maximum(z, 0), np.maximum(-z, 0))):
        totals.activation_weight[present, sign] += indicator @ (part * w)
        totals.activation[present, sign] += indicator @ part
        totals.n_active[present, sign] += (indicator @ (part > 0)).astype(np.int32)


def _indicator(group: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.integer], sparse.csr_matrix]:
    """The groups that occur [present]; and which rows are of each, 1 or 0: [present, rows]."""
    present, which = np.unique(group, return_inverse=True)
    ones = np.ones(len(group))
    return present, sparse.csr_matrix((ones, (which, np.arange(len(group)))), shape=(len(present), len(group)))
