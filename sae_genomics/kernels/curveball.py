"""Trades between rows of a table of zeros and ones: one trade depends on those before it, so the loop is compiled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import exact_kernel
from sae_genomics.kernels.plain import curveball as plain


@instead_of(plain.trade_rows)
def trade_rows(table: npt.NDArray[np.bool_], pairs: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]) -> None:
    _trade(table, pairs, keys)


@exact_kernel
def _trade(table, pairs, keys):  # type: ignore[no-untyped-def]
    step, first, second = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
    differ = np.empty(table.shape[1] + 1, np.int32)
    for k in range(len(pairs)):
        a, b = pairs[k, 0], pairs[k, 1]
        left, wanted, state = 0, 0, keys[k]
        for column in range(table.shape[1]):  # without a branch: which columns differ cannot be foreseen
            differ[left] = column
            left += table[a, column] != table[b, column]
        for place in range(left):
            wanted += table[a, differ[place]]
        for place in range(left):
            column = differ[place]
            state = state + step
            mixed = (state ^ (state >> np.uint64(30))) * first
            mixed = (mixed ^ (mixed >> np.uint64(27))) * second
            mixed = mixed ^ (mixed >> np.uint64(31))
            taken = np.float64(mixed >> np.uint64(11)) * 2.0**-53 * left < wanted
            table[a, column] = taken
            table[b, column] = not taken
            wanted -= taken
            left -= 1
