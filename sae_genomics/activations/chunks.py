"""Where the chunks of an HDF5 dataset lie in its file, and reading them from there.

HDF5 reads a chunk into memory of its own, takes the checksum slowly and copies the rows out, all under one lock. A chunk
that is stored as it is, checksum behind, is here read straight to where its rows belong, and verified there.
"""

from __future__ import annotations

import os
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sae_genomics.activations.checksum import MOST_WORDS, fletcher32

_CHECKSUM = np.dtype("<u4")


class Chunks:
    """The chunks of a dataset [rows, columns], each of them whole rows, numbered as they follow one another.

    What is compressed, damaged or otherwise not as expected is left to HDF5 and its errors.
    """

    def __init__(self, rows: h5py.Dataset):
        self._descriptor: int = rows.file.id.get_vfd_handle()
        found: list[Any] = []
        try:
            rows.id.chunk_iter(found.append)
        except (OSError, RuntimeError):
            found.clear()
        self._offset = np.zeros(-(-rows.shape[0] // rows.chunks[0]), dtype=np.int64)
        self._size = np.zeros_like(self._offset)  # 0 where not known
        self._direct = np.zeros(len(self._offset), dtype=bool)
        if found:
            number = np.array([place.chunk_offset[0] for place in found]) // rows.chunks[0]
            self._offset[number] = [place.byte_offset for place in found]
            self._size[number] = [place.size for place in found]
            self._direct[number] = [place.filter_mask == 0 for place in found]
        n_bytes = int(np.prod(rows.chunks)) * rows.dtype.itemsize
        self._direct &= self._size == n_bytes + _CHECKSUM.itemsize
        if not _only_checksums(rows) or n_bytes % 2 or n_bytes > 2 * MOST_WORDS or not hasattr(os, "preadv"):
            self._direct[:] = False

    def read(self, number: int, out: npt.NDArray[Any]) -> bool:
        """Read a chunk, its checksum verified; False, and anything in `out`, where that is for HDF5 to do.

        out: [rows of a chunk, columns], contiguous, of the dataset's dtype.
        """
        if not self._direct[number]:
            return False
        words, checksum = out.reshape(-1).view(np.uint16), np.empty(1, dtype=_CHECKSUM)
        try:
            n_bytes = os.preadv(self._descriptor, [words.data, checksum.data], int(self._offset[number]))
        except OSError:
            return False
        return n_bytes == self._size[number] and bool(fletcher32(words) == checksum[0])

    def expect(self, first: int, last: int) -> None:
        """Let the operating system begin to read the chunks `first` to `last`, these not included."""
        if hasattr(os, "posix_fadvise"):
            for number in range(first, last):
                if self._size[number]:
                    place = int(self._offset[number]), int(self._size[number])
                    os.posix_fadvise(self._descriptor, *place, os.POSIX_FADV_WILLNEED)


def _only_checksums(rows: h5py.Dataset) -> bool:
    """Whether nothing but the checksum is done to a chunk's bytes when it is stored."""
    plan = rows.id.get_create_plist()
    return [plan.get_filter(i)[0] for i in range(plan.get_nfilters())] == [h5py.h5z.FILTER_FLETCHER32]
