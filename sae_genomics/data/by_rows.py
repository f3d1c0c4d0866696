"""A matrix of compressed columns, copied once into one of compressed rows with bounded memory."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt

from sae_genomics.atomic import atomic_path, remove_leftovers
from sae_genomics.data.disk import check_disk
from sae_genomics.data.matrix import CscMatrix, CsrMatrix, Rows, StoredMatrix, pointers
from sae_genomics.errors import DamagedArtifact
from sae_genomics.progress import Progress, stop_point
from sae_genomics.stages import stage_named

if TYPE_CHECKING:
    from sae_genomics.data.h5ad import CellTable
    from sae_genomics.run import Run

BAND_VALUES = 1 << 22


def copy_bytes(source: CscMatrix) -> int:
    """Most disk that a copy takes while it is made: the buckets and the result."""
    return source.n_values * (_record(source.dtype).itemsize + source.dtype.itemsize + 4)


def copy_by_rows(source: CscMatrix, rows: Rows, path: Path, key: str, band_values: int = BAND_VALUES) -> None:
    """Write some rows of a column-wise matrix row-wise, atomically, to `path`.

    rows: int64 [n], ascending and distinct; row i of the copy is rows[i] of the source.
    key: what the copy was made from; `open_copy` asks for it.
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
        place = position[some]
        lengths += np.bincount(place[place >= 0], minlength=len(rows))
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
            group["indptr"] = indptr
            data = group.create_dataset("data", (indptr[-1],), dtype=source.dtype)
            indices = group.create_dataset("indices", (indptr[-1],), dtype=np.int32)
            for begin, end in itertools.pairwise(edges):
                low, high = int(indptr[begin]), int(indptr[end])
                band = _read_band(buckets, low, high, source.dtype)
                band = band[np.argsort(band["row"], kind="stable")]  # columns ascend already
                data[low:high], indices[low:high] = band["value"], band["column"]
                stop_point()
            file.attrs["key"] = key


def open_copy(path: Path, key: str, where: str) -> CsrMatrix | None:
    """The copy at `path`, or None when it is not there or was made from something else. Close it after use."""
    if not path.exists():
        return None
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError:
        return None
    if file.attrs.get("key") != key:
        file.close()
        return None
    shape = file["X"].attrs["shape"]
    return CsrMatrix(where, file["X"], (int(shape[0]), int(shape[1])))


@contextmanager
def open_by_rows(
    run: Run, table: CellTable, where: str, used_rows: Callable[[], Rows]
) -> Iterator[tuple[StoredMatrix, bool]]:
    """A matrix of the run's input that can be read by rows, and whether it is a copy whose row i is the i-th cell used.

    used_rows: gives all rows that the run uses; asked for only when a copy must be made.

    A copy is kept in the run's checkpoints for the stages that follow and made again when it is not there. Raises
    UserError when the disk cannot hold it.
    """
    matrix = table.matrix(where)
    if not isinstance(matrix, CscMatrix):
        yield matrix, False
        return
    path = copy_file(run)
    key = f"{run.base_fingerprint(stage_named('prepare'))} {where}"
    copy = open_copy(path, key, where)
    if copy is None:
        check_disk({path.parent: copy_bytes(matrix)}, f"a row-wise copy of {where}", "lower data.max_cells")
        copy_by_rows(matrix, used_rows(), path, key)
        copy = open_copy(path, key, where)
        if copy is None:
            raise DamagedArtifact(f"{path} cannot be read back", path)
    try:
        yield copy, True
    finally:
        copy.close()


def copy_file(run: Run) -> Path:
    """Where the copy of a run's counts stands, where one is needed."""
    return run.checkpoints / "counts_by_row.h5"


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
        place = position[row]
        keep = place >= 0
        piece = np.empty(int(keep.sum()), dtype=record)
        piece["row"], piece["column"], piece["value"] = place[keep], column[keep], value[keep]
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
