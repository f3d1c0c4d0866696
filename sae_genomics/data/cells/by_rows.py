"""A matrix of compressed columns, copied once into one of compressed rows with bounded memory."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import h5py
import numpy as np
import numpy.typing as npt

from sae_genomics import content
from sae_genomics.atomic import atomic_path, remove_leftovers
from sae_genomics.checked_json import write_checked_json
from sae_genomics.data.cells.matrix import CscMatrix, Rows
from sae_genomics.progress import Progress, stop_point
from sae_genomics.tokens import pointers

BAND_VALUES = 1 << 22
_CHUNK_VALUES = 1 << 17  # 1 MB at most, which HDF5 keeps while neighbours are written or read


def copy_bytes(source: CscMatrix) -> int:
    """Most disk that a copy takes while it is made: the buckets and the result."""
    return source.n_values * (_record(source.dtype).itemsize + source.dtype.itemsize + 4)


def copy_by_rows(source: CscMatrix, rows: Rows, path: Path, key: str, band_values: int = BAND_VALUES) -> None:
    """Write some rows of a column-wise matrix row-wise, atomically, to `path`.

    rows: int64 [n], ascending and distinct; row i of the copy is rows[i] of the source.
    key: what the copy was made from; `row_copy.open_copy` asks for it.
    band_values: values held in memory at once (about 40 bytes each).

    An external bucket sort: the first pass counts each row's values and cuts the rows into bands of bounded size, the
    second appends each value to its band's part of a temporary file beside `path`, then each band is sorted in memory
    and written. The source is read twice, whatever its size.
    """
    position = np.full(source.shape[0], -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    lengths = np.zeros(len(rows), dtype=np.int64)
    progress = Progress(f"copying {source.where} by rows", 2 * source.n_values, "values")
    for some in source.rows_of_values(band_values):
        target = position[some]
        lengths += np.bincount(target[target >= 0], minlength=len(rows))
        progress.advance(len(some))
        stop_point()
    indptr = pointers(lengths)
    edges = np.array(list(_band_edges(indptr, band_values)), dtype=np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with tempfile.TemporaryFile(dir=path.parent) as buckets, atomic_path(path) as temporary:
        _fill_buckets(source, position, edges, indptr, buckets, band_values, progress)
        progress.finish()
        with h5py.File(temporary, "w") as file:
            group = file.create_group("X")
            group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            group.attrs["shape"] = (len(rows), source.shape[1])
            _with_checksums(group, "indptr", len(indptr), indptr.dtype)[:] = indptr
            data = _with_checksums(group, "data", int(indptr[-1]), source.dtype)
            indices = _with_checksums(group, "indices", int(indptr[-1]), np.dtype(np.int32))
            for begin, end in itertools.pairwise(edges):
                low, high = int(indptr[begin]), int(indptr[end])
                band = _read_band(buckets, low, high, source.dtype)
                band = band[np.argsort(band["row"], kind="stable")]  # columns ascend already
                data[low:high], indices[low:high] = band["value"], band["column"]
                stop_point()
    write_checked_json(record_file(path), {"key": key, **content.record(path)})


def record_file(path: Path) -> Path:
    """Where it stands what a copy was made from and what it holds."""
    return path.with_suffix(".json")


def _with_checksums(group: h5py.Group, name: str, length: int, dtype: np.dtype) -> h5py.Dataset:
    """An array whose chunks are verified when they are read; HDF5 has no chunks for one without values."""
    if not length:
        return group.create_dataset(name, (0,), dtype)
    return group.create_dataset(name, (length,), dtype, chunks=(min(length, _CHUNK_VALUES),), fletcher32=True)


def _record(dtype: np.dtype) -> np.dtype:
    return np.dtype([("row", "<i8"), ("column", "<i4"), ("value", dtype)])


def _band_edges(indptr: Rows, band_values: int) -> Iterator[int]:
    edge, last = 0, len(indptr) - 1
    yield edge
    while edge < last:
        edge = min(last, max(edge + 1, int(np.searchsorted(indptr, indptr[edge] + band_values, side="right")) - 1))
        yield edge


def _fill_buckets(
    source: CscMatrix,
    position: Rows,
    edges: Rows,
    indptr: Rows,
    buckets: IO[bytes],
    band_values: int,
    progress: Progress,
) -> None:
    record = _record(source.dtype)
    free = indptr[edges].copy()  # where each band's next value goes
    for row, column, value in source.values(band_values):
        target = position[row]
        keep = target >= 0
        piece = np.empty(int(keep.sum()), dtype=record)
        piece["row"], piece["column"], piece["value"] = target[keep], column[keep], value[keep]
        band = np.searchsorted(edges, piece["row"], side="right") - 1
        piece = piece[np.argsort(band, kind="stable")]
        sizes = np.bincount(band, minlength=len(edges))
        at = pointers(sizes)
        for each in np.flatnonzero(sizes):
            buckets.seek(int(free[each]) * record.itemsize)
            buckets.write(piece[at[each] : at[each + 1]].tobytes())
            free[each] += sizes[each]
        progress.advance(len(row))
        stop_point()
    buckets.flush()


def _read_band(buckets: IO[bytes], low: int, high: int, dtype: np.dtype) -> npt.NDArray[np.void]:
    record = _record(dtype)
    buckets.seek(low * record.itemsize)
    return np.frombuffer(buckets.read((high - low) * record.itemsize), dtype=record)
