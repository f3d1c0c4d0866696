"""The chunks of an HDF5 dataset that are stored as they are, with nothing but a checksum behind.

HDF5 reads a chunk into memory of its own, takes the checksum slowly and copies the rows out, all under one lock; and writes
it likewise. Here chunks are read straight from where they lie in the file to where their rows belong, and verified
there; and handed to HDF5 with the checksum already behind them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sae_genomics.activations.format.checksum import MOST_WORDS, fletcher32
from sae_genomics.activations.format.output import OutputFile

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
        n_bytes = _chunk_bytes(rows)
        self._direct &= self._size == n_bytes + _CHECKSUM.itemsize
        if not checksums_alone(rows) or not hasattr(os, "preadv"):
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


class ChunkWriter:
    """Writes all rows of a new dataset [rows, columns], in order, where it has `checksums_alone`.

    Chunks are as HDF5 makes them; what a last one has beyond the dataset's rows is zero.

    output: the file that HDF5 writes through. offsets: where each chunk written so far lies in it; None where not known.
    """

    def __init__(self, rows: h5py.Dataset, output: OutputFile):
        self._file, self._n_rows, self._output = rows.id, rows.shape[0], output
        self.offsets: list[int] | None = []
        n_bytes = _chunk_bytes(rows)
        self._chunk = np.zeros(n_bytes + _CHECKSUM.itemsize, dtype=np.uint8)
        self._rows = self._chunk[:n_bytes].view(rows.dtype).reshape(rows.chunks)
        self._words, self._checksum = self._chunk[:n_bytes].view(np.uint16), self._chunk[n_bytes:].view(_CHECKSUM)

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Store rows from `start` on, where the last ones ended. rows: [n, columns], of the dataset's dtype."""
        while len(rows):
            first = start % len(self._rows)
            taken = rows[: len(self._rows) - first]
            self._rows[first : first + len(taken)] = taken
            if first + len(taken) == len(self._rows) or start + len(taken) == self._n_rows:
                self._rows[first + len(taken) :] = 0
                self._checksum[0] = fletcher32(self._words)
                self._file.write_direct_chunk((start - first, 0), self._chunk)
                offset, n_bytes = self._output.last_write
                if self.offsets is not None and n_bytes == len(self._chunk):
                    self.offsets.append(offset)
                else:
                    self.offsets = None
            start += len(taken)
            rows = rows[len(taken) :]

    def tail(self, written: int) -> npt.NDArray[Any]:
        """A copy of the rows that wait for their chunk to be full. written: rows so far."""
        waiting = written % len(self._rows) if written < self._n_rows else 0
        return self._rows[:waiting].copy()


def read_chunks(
    path: Path, offsets: npt.NDArray[np.int64], shape: tuple[int, int], dtype: npt.DTypeLike
) -> Iterator[npt.NDArray[Any]]:
    """The rows of chunks that a ChunkWriter wrote to a file that was never finished. Raises ValueError at a damaged one.

    shape: rows of a chunk, columns. The array is overwritten by the next one.
    """
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    chunk = np.empty(n_bytes + _CHECKSUM.itemsize, dtype=np.uint8)
    rows = chunk[:n_bytes].view(dtype).reshape(shape)
    with open(path, "rb", buffering=0) as file:
        for offset in offsets:
            file.seek(int(offset))
            if file.readinto(chunk.data) != len(chunk):
                raise ValueError(f"{path} is too short")
            if fletcher32(chunk[:n_bytes].view(np.uint16)) != chunk[n_bytes:].view(_CHECKSUM)[0]:
                raise ValueError(f"{path} is damaged")
            yield rows


def _chunk_bytes(rows: h5py.Dataset) -> int:
    """Of the chunk's rows alone."""
    return int(np.prod(rows.chunks)) * int(rows.dtype.itemsize)


def checksums_alone(rows: h5py.Dataset) -> bool:
    """Whether nothing but the checksum is done to a chunk's bytes when it is stored, and `fletcher32` can take it."""
    n_bytes, plan = _chunk_bytes(rows), rows.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    return (
        filters == [h5py.h5z.FILTER_FLETCHER32]
        and sys.byteorder == "little"
        and n_bytes % 2 == 0
        and n_bytes <= 2 * MOST_WORDS
    )
