"""HDF5's Fletcher-32 checksum, several times as fast as HDF5 takes it and without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

MOST_WORDS = 1 << 24  # sums of more might not fit 64 bits
_LANES = 256
_ROUNDS = 360  # sums of so many words' sums fit 32 bits


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    signature = "uint32(uint16[::1])"
    try:
        return numba.njit(signature, nogil=True, cache=True)(function)
    except (OSError, RuntimeError):  # no room, or no folder, to keep the machine code in
        return numba.njit(signature, nogil=True)(function)


@_compiled
def fletcher32(words: Any) -> Any:
    """The checksum that HDF5 keeps in the four bytes after a chunk, as these bytes read: a little-endian uint32.

    words: uint16 [n <= MOST_WORDS], contiguous: the chunk's bytes on a little-endian machine.

    The halves are sum(w[i]) and sum((n - i) w[i]) modulo 65535, a multiple of it being 65535 unless it is 0. HDF5's words
    are big-endian; modulo 65535, to swap a word's bytes is to multiply it by 256, so swapping the sums' bytes does for all.
    """
    # Words are dealt to lanes that are added up side by side: once is the sum of a lane's words of a block, and in often
    # the first of its R words counts R times, the last once.
    once, often = np.empty(_LANES, dtype=np.uint32), np.empty(_LANES, dtype=np.uint32)
    low = high = np.uint64(0)
    whole = len(words) // _LANES * _LANES
    for start in range(0, whole, _LANES * _ROUNDS):
        block = words[start : min(start + _LANES * _ROUNDS, whole)]
        once[:] = 0
        often[:] = 0
        for first in range(0, len(block), _LANES):
            for lane in range(_LANES):
                once[lane] += block[first + lane]
                often[lane] += once[lane]
        high += np.uint64(len(block)) * low
        for lane in range(_LANES):
            high += np.uint64(_LANES) * np.uint64(often[lane]) - np.uint64(lane) * np.uint64(once[lane])
            low += np.uint64(once[lane])
    for word in words[whole:]:
        low += np.uint64(word)
        high += low
    checksum = np.uint64(0)
    for total in (high, low):
        if total > 0:
            total = (total - np.uint64(1)) % np.uint64(65535) + np.uint64(1)
        swapped = (total & np.uint64(0xFF)) << np.uint64(8) | total >> np.uint64(8)
        checksum = checksum << np.uint64(16) | swapped
    return checksum
