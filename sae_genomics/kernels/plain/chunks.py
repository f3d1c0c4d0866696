"""Rows of an HDF5 dataset read and written through HDF5 itself."""

from __future__ import annotations

from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt


class Output(Protocol):
    """The file that HDF5 writes through. last_write: where its last write began, and how many bytes that had."""

    last_write: tuple[int, int]


class Chunks:
    """The chunks of a dataset [rows, columns], each of them whole rows, numbered from 0. HDF5 reads them all."""

    def read(self, number: int, out: npt.NDArray[Any]) -> bool:
        """Read a chunk, its checksum verified; False, and anything in `out`, where that is for HDF5 to do.

        out: [rows of a chunk, columns], contiguous, of the dataset's dtype.
        """
        return False

    def expect(self, first: int, last: int) -> None:
        """Let the operating system begin to read the chunks `first` to `last`, the last not included."""


class ChunkWriter:
    """Writes all rows of a new dataset [rows, columns], in order, one whole chunk at a time.

    What a last chunk has beyond the dataset's rows is zero.

    offsets: where each chunk written so far lies in the file; None where that is not known.
    """

    def __init__(self, rows: h5py.Dataset, output: Output):
        self._dataset, self._output, self._n_rows = rows, output, rows.shape[0]
        self._chunk: npt.NDArray[Any] = np.zeros(rows.chunks, dtype=rows.dtype)  # the one that is filled
        self.offsets: list[int] | None = []

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Store rows from `start` on, where the last ones ended. rows: [n, columns], of the dataset's dtype."""
        while len(rows):
            first = start % len(self._chunk)
            taken = rows[: len(self._chunk) - first]
            last = first + len(taken)
            self._chunk[first:last] = taken
            if last == len(self._chunk) or start + len(taken) == self._n_rows:
                self._chunk[last:] = 0
                offset = self._store(start - first, last)
                if offset is None:
                    self.offsets = None
                elif self.offsets is not None:
                    self.offsets.append(offset)
            start += len(taken)
            rows = rows[len(taken) :]

    def _store(self, start: int, count: int) -> int | None:
        """Store the first `count` rows of the chunk as the dataset's rows from `start` on. Returns where the chunk lies in the file."""
        self._dataset.write_direct(self._chunk, np.s_[:count], np.s_[start : start + count])
        self._dataset.flush()  # until then HDF5 has not decided
        offset = self._dataset.id.get_chunk_info_by_coord((start, 0)).byte_offset
        return None if offset is None else int(offset)

    def tail(self, written: int) -> npt.NDArray[Any]:
        """A copy of the rows that wait for their chunk to be full. written: rows so far."""
        waiting = written % len(self._chunk) if written < self._n_rows else 0
        return self._chunk[:waiting].copy()


def chunks_of(rows: h5py.Dataset) -> Chunks:
    """What reads whole chunks of an open dataset."""
    return Chunks()


def chunk_writer(rows: h5py.Dataset, output: Output) -> ChunkWriter:
    """What writes a new dataset of a file that HDF5 writes through `output`."""
    return ChunkWriter(rows, output)
