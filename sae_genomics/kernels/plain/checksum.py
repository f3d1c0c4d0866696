"""HDF5's Fletcher-32 checksum in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def fletcher32(values: npt.NDArray[np.uint16]) -> int:
    """The checksum that HDF5 keeps in the four bytes after a chunk, as these bytes read: a little-endian uint32.

        low = sum(v[i])          high = sum((n - i) v[i])          checksum = high * 65536 + low

    values: uint16 [n <= 2^24], the chunk's bytes on a little-endian machine.

    Both sums are modulo 65535, where a multiple of it is 65535 unless it is 0. HDF5 reads big-endian numbers. Modulo 65535,
    to swap a number's bytes is to multiply it by 256, so swapping the sums' bytes is enough.
    """
    numbers = values.astype(np.uint64)
    counts = np.arange(len(values), 0, -1, dtype=np.uint64)
    return _half(int((counts * numbers).sum())) << 16 | _half(int(numbers.sum()))


def _half(total: int) -> int:
    remainder = (total - 1) % 65535 + 1 if total else 0
    return int(np.uint16(remainder).byteswap())
