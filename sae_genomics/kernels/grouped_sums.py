"""Sums of rows by their group: every row is read once, and added in its order, whatever the size of the blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Floats, Ints, SignedTotals
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import exact_kernel
from sae_genomics.kernels.grouping import by_group
from sae_genomics.kernels.plain import grouped_sums as plain


@instead_of(plain.add_rows)
def add_rows(
    sums: Floats, counts: Ints, x: npt.NDArray[np.float32], shift: Floats, group: npt.NDArray[np.integer]
) -> float:
    squared: float = _add_rows(sums, counts, x, shift, group)
    return squared


@instead_of(plain.add_signed)
def add_signed(
    totals: SignedTotals, group: npt.NDArray[np.integer], weight: npt.NDArray[np.floating],
    y: npt.NDArray[np.float32], mean: npt.NDArray[np.float32], inverse_std: npt.NDArray[np.float32],
) -> None:  # fmt: skip
    ptr, order = by_group(group, len(totals.activation))
    _add_signed(totals, ptr, order, weight, y, mean, inverse_std)


@exact_kernel
def _add_rows(sums, counts, x, shift, group):  # type: ignore[no-untyped-def]
    squared = 0.0
    for i in range(len(group)):
        counts[group[i]] += 1
        of_row = 0.0
        for j in range(x.shape[1]):
            value = x[i, j] - shift[j]
            sums[group[i], j] += value
            of_row += value * value
        squared += of_row
    return squared


@exact_kernel
def _add_signed(totals, ptr, order, weight, y, mean, inverse_std):  # type: ignore[no-untyped-def]
    activation_weight, activation, n_active = totals.activation_weight, totals.activation, totals.n_active
    for g in range(len(ptr) - 1):
        for o in range(ptr[g], ptr[g + 1]):
            t = order[o]
            w = np.float64(weight[t])
            for j in range(len(mean)):
                z = (y[t, j] - mean[j]) * inverse_std[j]
                positive = np.float64(z) if z > 0 else 0.0
                activation_weight[g, 0, j] += positive * w
                activation[g, 0, j] += positive
                n_active[g, 0, j] += 1 if z > 0 else 0
                negative = -np.float64(z) if z < 0 else 0.0
                activation_weight[g, 1, j] += negative * w
                activation[g, 1, j] += negative
                n_active[g, 1, j] += 1 if z < 0 else 0
