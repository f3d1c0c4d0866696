"""Trades between rows of a table of zeros and ones, one after the other. A trade keeps the sum of each row and of each column.

A trade of rows a and b: the columns that only one of them has are dealt out anew; a keeps as many as it had. Each way to deal is equally likely.
Many trades between random pairs of rows lead to every table with the same margins equally often.

Strona et al. 2014, Nat. Commun. 5:4114. Carstens 2015, Phys. Rev. E 91:042812.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1


def trade_rows(table: npt.NDArray[np.bool_], pairs: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]) -> None:
    """Make the trades in order; changes `table`.

    table: [rows, columns]. pairs: [trades, 2], rows. keys: [trades], where the random numbers of each trade begin (splitmix64).
    """
    for (a, b), key in zip(pairs.tolist(), keys.tolist(), strict=True):
        differing = np.flatnonzero(table[a] != table[b])
        left, wanted, state = len(differing), int(table[a, differing].sum()), key
        for column in differing.tolist():
            state = (state + 0x9E3779B97F4A7C15) & _MASK
            mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
            mixed ^= mixed >> 31
            taken = (mixed >> 11) * 2.0**-53 * left < wanted
            table[a, column], table[b, column] = taken, not taken
            wanted -= taken
            left -= 1
