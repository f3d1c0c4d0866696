"""Rows of a matrix stored in HDF5, a bounded number of values at a time, whatever its layout on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import h5py
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from sae_genomics.errors import UserError
from sae_genomics.tokens import pointers, ranges

BLOCK_VALUES = 1 << 21
_GAP_VALUES = 1 << 14  # reading through a gap of this many values is cheaper than a second read
_INDEX_ROWS = 1 << 16

Rows = npt.NDArray[np.int64]


class StoredMatrix(ABC):
    """Cells x genes on disk.

    where: its name as in `data.counts`: X, raw or layers:NAME.
    shape: (cells, genes).
    dtype: of the values in memory: that on disk in native byte order, but float32 for float16, which scipy cannot hold.
    layout: how it is stored. `csc` cannot be read by rows; see `by_rows`.
    """

    layout: Literal["csr", "csc", "dense"]

    def __init__(self, where: str, file: str, shape: tuple[int, int], dtype: np.dtype):
        self.where, self.file, self.shape = where, file, shape
        self.dtype = np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")
        if dtype.kind not in "fiub":
            raise UserError(f"{file}: {where} holds {dtype} values, not numbers; set data.counts to another matrix")

    @property
    @abstractmethod
    def n_values(self) -> int:
        """Values on disk: the non-zero ones of a sparse matrix, all of a dense one."""

    @abstractmethod
    def blocks(self, rows: Rows, max_values: int = BLOCK_VALUES) -> Iterator[tuple[slice, csr_matrix]]:
        """Walk through rows in blocks of about `max_values` values.

        rows: int64 [n], ascending and distinct.

        Yields (slice of `rows`, their values [rows in the slice, genes]). Raises UserError when the file is damaged.
        """

    def take(self, rows: Rows) -> csr_matrix:
        """All of the rows at once: [rows, genes]."""
        parts = [block for _, block in self.blocks(rows)]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return csr_matrix((0, self.shape[1]), dtype=self.dtype)
        lengths = np.concatenate([np.diff(part.indptr) for part in parts])
        data = np.concatenate([part.data for part in parts])
        indices = np.concatenate([part.indices for part in parts])
        return csr_matrix((data, indices, pointers(lengths)), shape=(len(rows), self.shape[1]))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn HDF5's complaints into one line."""
        try:
            yield
        except OSError as error:
            cause = " ".join(str(error).split())
            hint = (
                "pip install hdf5plugin reads more compressions"
                if "filter" in cause or "plugin" in cause
                else "the file is damaged; copy it again"
            )
            raise UserError(f"{self.file}: {self.where} cannot be read ({cause}); {hint}") from None


class CsrMatrix(StoredMatrix):
    """Compressed sparse rows: the usual case."""

    layout = "csr"

    def __init__(self, where: str, group: h5py.Group, shape: tuple[int, int]):
        super().__init__(where, group.file.filename, shape, group["data"].dtype)
        self._data, self._indices, self._indptr = group["data"], group["indices"], group["indptr"]
        _check_lengths(self, self._data, self._indices, self._indptr, shape[0])

    def close(self) -> None:
        """Close the file behind the matrix."""
        self._data.file.close()

    @property
    def n_values(self) -> int:
        return int(self._data.shape[0])

    def blocks(self, rows: Rows, max_values: int = BLOCK_VALUES) -> Iterator[tuple[slice, csr_matrix]]:
        for first in range(0, len(rows), _INDEX_ROWS):
            some = rows[first : first + _INDEX_ROWS]
            starts, stops = self._bounds(some)
            for begin, end in _cuts(stops - starts, max_values):
                yield slice(first + begin, first + end), self._read(starts[begin:end], stops[begin:end], max_values)

    def _bounds(self, rows: Rows) -> tuple[Rows, Rows]:
        """Where the rows' values start and stop."""
        both = np.union1d(rows, rows + 1)
        with self.reading():
            values = read_rows(self._indptr, both).astype(np.int64)
        starts, stops = values[np.searchsorted(both, rows)], values[np.searchsorted(both, rows + 1)]
        if (starts > stops).any() or starts.min(initial=0) < 0 or stops.max(initial=0) > self.n_values:
            raise UserError(f"{self.file}: {self.where}/indptr is damaged; copy the file again")
        return starts, stops

    def _read(self, starts: Rows, stops: Rows, max_values: int) -> csr_matrix:
        lengths = stops - starts
        indptr = pointers(lengths)
        data = np.empty(indptr[-1], dtype=self.dtype)
        indices = np.empty(indptr[-1], dtype=np.int32)
        gap = max(_GAP_VALUES, (self._data.chunks or (0,))[0])
        for first, last in _spans(starts, stops, gap, max_values):
            low, high = int(starts[first]), int(stops[last - 1])
            into = slice(int(indptr[first]), int(indptr[last]))
            if low == high:
                continue
            with self.reading():
                some_data, some_indices = self._data[low:high], self._indices[low:high]
            if high - low > into.stop - into.start:
                wanted = ranges(starts[first:last] - low, lengths[first:last])
                some_data, some_indices = some_data[wanted], some_indices[wanted]
            data[into], indices[into] = some_data, some_indices
        if len(indices) and (indices.min() < 0 or indices.max() >= self.shape[1]):
            raise UserError(f"{self.file}: {self.where}/indices names genes that are not there; copy the file again")
        return csr_matrix((data, indices, indptr), shape=(len(starts), self.shape[1]), copy=False)


class CscMatrix(StoredMatrix):
    """Compressed sparse columns: read once from front to back, never by rows."""

    layout = "csc"

    def __init__(self, where: str, group: h5py.Group, shape: tuple[int, int]):
        super().__init__(where, group.file.filename, shape, group["data"].dtype)
        self._data, self._indices, self._indptr = group["data"], group["indices"], group["indptr"]
        _check_lengths(self, self._data, self._indices, self._indptr, shape[1])

    @property
    def n_values(self) -> int:
        return int(self._data.shape[0])

    def blocks(self, rows: Rows, max_values: int = BLOCK_VALUES) -> Iterator[tuple[slice, csr_matrix]]:
        raise TypeError("a matrix of compressed columns is read by rows through by_rows.copy_by_rows")

    def rows_of_values(self, max_values: int = BLOCK_VALUES) -> Iterator[Rows]:
        """Row of each value, in the file's order."""
        for low in range(0, self.n_values, max_values):
            with self.reading():
                rows = self._indices[low : low + max_values].astype(np.int64)
            if rows.min() < 0 or rows.max() >= self.shape[0]:
                raise UserError(
                    f"{self.file}: {self.where}/indices names cells that are not there; copy the file again"
                )
            yield rows

    def values(self, max_values: int = BLOCK_VALUES) -> Iterator[tuple[Rows, npt.NDArray[np.int32], npt.NDArray]]:
        """Row, column and value of each value, in the file's order: column by column."""
        with self.reading():
            indptr = self._indptr[:].astype(np.int64)
        for low, rows in zip(range(0, self.n_values, max_values), self.rows_of_values(max_values), strict=True):
            high = low + len(rows)
            lengths = np.clip(indptr[1:], low, high) - np.clip(indptr[:-1], low, high)
            columns = np.repeat(np.arange(self.shape[1], dtype=np.int32), lengths)
            with self.reading():
                yield rows, columns, self._data[low:high]


class DenseMatrix(StoredMatrix):
    """A plain two-dimensional array."""

    layout = "dense"

    def __init__(self, where: str, data: h5py.Dataset):
        super().__init__(where, data.file.filename, data.shape, data.dtype)
        self._data = data

    @property
    def n_values(self) -> int:
        return self.shape[0] * self.shape[1]

    def blocks(self, rows: Rows, max_values: int = BLOCK_VALUES) -> Iterator[tuple[slice, csr_matrix]]:
        step = max(1, max_values // max(self.shape[1], 1))
        for first in range(0, len(rows), step):
            some = slice(first, min(first + step, len(rows)))
            with self.reading():
                yield some, csr_matrix(read_rows(self._data, rows[some], max_values).astype(self.dtype, copy=False))


def open_matrix(where: str, element: h5py.Group | h5py.Dataset) -> StoredMatrix:
    """The matrix behind an HDF5 object, in the current or the older (`h5sparse_format`) layout. Raises UserError."""
    if isinstance(element, h5py.Dataset):
        if len(element.shape or ()) != 2:
            raise UserError(
                f"{element.file.filename}: {where} is not a two-dimensional matrix; set data.counts to another"
            )
        return DenseMatrix(where, element)
    kind = element.attrs.get("encoding-type", element.attrs.get("h5sparse_format", ""))
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    shape = element.attrs.get("shape", element.attrs.get("h5sparse_shape"))
    if not kind.startswith(("csr", "csc")) or shape is None or not {"data", "indices", "indptr"} <= set(element):
        raise UserError(
            f"{element.file.filename}: {where} is stored as {kind or 'an unknown kind'}, not as a dense or sparse matrix; "
            f"write the file again with anndata"
        )
    size = (int(shape[0]), int(shape[1]))
    return CsrMatrix(where, element, size) if kind.startswith("csr") else CscMatrix(where, element, size)


def read_rows(dataset: h5py.Dataset, rows: Rows, max_values: int = BLOCK_VALUES) -> npt.NDArray:
    """Rows of an HDF5 array, neighbouring ones in one read.

    dataset: [n, ...]. rows: int64 [m], ascending and distinct. Returns [m, ...].
    """
    width = int(np.prod(dataset.shape[1:], dtype=np.int64)) or 1
    result = np.empty((len(rows), *dataset.shape[1:]), dtype=dataset.dtype)
    gap = max(_GAP_VALUES // width, (dataset.chunks or (0,))[0])
    for first, last in _spans(rows, rows + 1, gap, max(1, max_values // width)):
        low, high = int(rows[first]), int(rows[last - 1]) + 1
        some = dataset[low:high]
        result[first:last] = some if high - low == last - first else some[rows[first:last] - low]
    return result


def _spans(starts: Rows, stops: Rows, gap: int, limit: int) -> Iterator[tuple[int, int]]:
    """Group ascending intervals for reading: no gap above `gap` within a group, no group much longer than `limit`."""
    if not len(starts):
        return
    apart = (starts[1:] - stops[:-1] > gap) | (starts[1:] // limit != starts[:-1] // limit)
    edges = np.concatenate([[0], np.flatnonzero(apart) + 1, [len(starts)]])
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _cuts(lengths: Rows, limit: int) -> Iterator[tuple[int, int]]:
    """Cut runs into groups of at most `limit` values, at least one run each."""
    at = pointers(lengths)
    begin = 0
    while begin < len(lengths):
        end = max(begin + 1, int(np.searchsorted(at, at[begin] + limit, side="right")) - 1)
        yield begin, end
        begin = end


def _check_lengths(
    matrix: StoredMatrix, data: h5py.Dataset, indices: h5py.Dataset, indptr: h5py.Dataset, n_runs: int
) -> None:
    if data.shape != indices.shape or indptr.shape != (n_runs + 1,):
        raise UserError(f"{matrix.file}: the parts of {matrix.where} do not fit together; copy the file again")
