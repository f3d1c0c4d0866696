"""HDF5's Fletcher-32 checksum, several times as fast as HDF5 takes it and without the interpreter's lock."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import exact_kernel
from sae_genomics.kernels.plain import checksum as plain

MOST_VALUES = 1 << 24  # sums of more might not fit 64 bits
_COLUMNS = 256
_ROWS = 360  # sums of so many values' sums fit 32 bits


@instead_of(plain.fletcher32)
def fletcher32(values: npt.NDArray[np.uint16]) -> int:
    """The checksum that HDF5 keeps in the four bytes after a chunk; formula and layout stand in the plain version.

    values: uint16 [n <= MOST_VALUES], contiguous: the chunk's bytes on a little-endian machine.
    """
    return int(_fletcher32(values))


@exact_kernel
def _fletcher32(values: Any) -> Any:
    # A block of values is seen as R rows of 256 columns, and all columns are added up side by side. `once` is the sum of a
    # column; in `often` the column's first value counts R times, its last one once.
    once, often = np.empty(_COLUMNS, dtype=np.uint32), np.empty(_COLUMNS, dtype=np.uint32)
    low = high = np.uint64(0)
    whole = len(values) // _COLUMNS * _COLUMNS
    for start in range(0, whole, _COLUMNS * _ROWS):
        block = values[start : min(start + _COLUMNS * _ROWS, whole)]
        once[:] = 0
        often[:] = 0
        for first in range(0, len(block), _COLUMNS):
            for column in range(_COLUMNS):
                once[column] += block[first + column]
                often[column] += once[column]
        high += np.uint64(len(block)) * low
        for column in range(_COLUMNS):
            high += np.uint64(_COLUMNS) * np.uint64(often[column]) - np.uint64(column) * np.uint64(once[column])
            low += np.uint64(once[column])
    for value in values[whole:]:
        low += np.uint64(value)
        high += low
    checksum = np.uint64(0)
    for total in (high, low):
        if total > 0:
            total = (total - np.uint64(1)) % np.uint64(65535) + np.uint64(1)
        swapped = (total & np.uint64(0xFF)) << np.uint64(8) | total >> np.uint64(8)
        checksum = checksum << np.uint64(16) | swapped
    return checksum
