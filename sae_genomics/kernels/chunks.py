"""The chunks of an HDF5 dataset that are stored as they are, with nothing but a checksum behind.

HDF5 reads a chunk into memory of its own, takes the checksum slowly and copies the rows out, all under one lock; and writes
it likewise. Here chunks are read straight from where they lie in the file to where their rows belong, and verified
there; and handed to HDF5 with the checksum already behind them.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.checksum import MOST_VALUES, fletcher32
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.plain import chunks as plain
from sae_genomics.kernels.plain.chunks import Chunks, ChunkWriter, Output

CHECKSUM = np.dtype("<u4")


@instead_of(plain.chunks_of)
def chunks_of(rows: h5py.Dataset) -> Chunks:
    """What reads whole chunks of an open dataset [rows, columns]."""
    return _DirectChunks(rows)


@instead_of(plain.chunk_writer)
def chunk_writer(rows: h5py.Dataset, output: Output) -> ChunkWriter:
    """What writes a new dataset [rows, columns] that has `checksums_alone`, of a file that HDF5 writes through `output`."""
    return _DirectWriter(rows, output)


def checksums_alone(rows: h5py.Dataset) -> bool:
    """Whether nothing but the checksum is done to a chunk's bytes when it is stored, and `fletcher32` can take it."""
    n_bytes, plan = _chunk_bytes(rows), rows.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    return (
        filters == [h5py.h5z.FILTER_FLETCHER32]
        and sys.byteorder == "little"
        and n_bytes % 2 == 0
        and n_bytes <= 2 * MOST_VALUES
    )


def _chunk_bytes(rows: h5py.Dataset) -> int:
    """Of the chunk's rows alone."""
    return int(np.prod(rows.chunks)) * int(rows.dtype.itemsize)


class _DirectChunks(Chunks):
    """What is compressed, damaged or otherwise not as expected is left to HDF5 and its errors."""

    def __init__(self, rows: h5py.Dataset):
        self._descriptor: int = rows.file.id.get_vfd_handle()
        stored: list[Any] = []
        try:
            rows.id.chunk_iter(stored.append)
        except (OSError, RuntimeError):
            stored.clear()
        self._offset = np.zeros(-(-rows.shape[0] // rows.chunks[0]), dtype=np.int64)
        self._size = np.zeros_like(self._offset)  # 0 where not known
        self._direct = np.zeros(len(self._offset), dtype=bool)
        if stored:
            number = np.array([chunk.chunk_offset[0] for chunk in stored]) // rows.chunks[0]
            self._offset[number] = [chunk.byte_offset for chunk in stored]
            self._size[number] = [chunk.size for chunk in stored]
            self._direct[number] = [chunk.filter_mask == 0 for chunk in stored]
        self._direct &= self._size == _chunk_bytes(rows) + CHECKSUM.itemsize
        if not checksums_alone(rows) or not hasattr(os, "preadv"):
            self._direct[:] = False

    def read(self, number: int, out: npt.NDArray[Any]) -> bool:
        if not self._direct[number]:
            return False
        values, checksum = out.reshape(-1).view(np.uint16), np.empty(1, dtype=CHECKSUM)
        try:
            n_bytes = os.preadv(self._descriptor, [values.data, checksum.data], int(self._offset[number]))
        except OSError:
            return False
        return n_bytes == self._size[number] and bool(fletcher32(values) == checksum[0])

    def expect(self, first: int, last: int) -> None:
        if hasattr(os, "posix_fadvise"):
            for number in range(first, last):
                if self._size[number]:
                    extent = int(self._offset[number]), int(self._size[number])
                    os.posix_fadvise(self._descriptor, *extent, os.POSIX_FADV_WILLNEED)


class _DirectWriter(ChunkWriter):
    """Chunks are as HDF5 makes them."""

    def __init__(self, rows: h5py.Dataset, output: Output):
        super().__init__(rows, output)
        n_bytes = _chunk_bytes(rows)
        self._stored = np.zeros(n_bytes + CHECKSUM.itemsize, dtype=np.uint8)
        self._chunk = self._stored[:n_bytes].view(rows.dtype).reshape(rows.chunks)
        self._values, self._checksum = self._stored[:n_bytes].view(np.uint16), self._stored[n_bytes:].view(CHECKSUM)

    def _store(self, start: int, count: int) -> int | None:
        self._checksum[0] = fletcher32(self._values)
        self._dataset.id.write_direct_chunk((start, 0), self._stored)
        offset, n_bytes = self._output.last_write
        return offset if n_bytes == len(self._stored) else None
