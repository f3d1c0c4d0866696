"""Sparse rows in, sparse columns out, with a temporary file between: memory does not grow with the rows.

Statistics of a feature over cells need its column; the pass over activations gives rows. Entries are dealt into
buckets of consecutive columns on disk, and one bucket at a time is read back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from scipy import sparse

_ENTRY = np.dtype([("row", "<i4"), ("column", "<i4"), ("value", "<f4")])
_BUCKETS = 32
_LEAST_NUMBERS = 1 << 22  # of a bucket, zeros too: a few columns of a few rows are not worth a bucket of their own


class ColumnStore:
    """A sparse float32 matrix [rows, columns], filled by rows in any order and read by columns.

    folder: where the temporary files stand, a scratch folder; they have no names, so the system takes them back when the process is killed.
    """

    def __init__(self, n_rows: int, n_columns: int, folder: Path):
        self.n_rows, self.n_columns = n_rows, n_columns
        least = min(n_columns, _LEAST_NUMBERS // max(n_rows, 1))
        self.width = max(1, -(-n_columns // _BUCKETS), least)
        self._files = [tempfile.TemporaryFile(dir=folder) for _ in range(0, n_columns, self.width)]  # noqa: SIM115

    def add(
        self, row: npt.NDArray[np.integer], column: npt.NDArray[np.integer], value: npt.NDArray[np.floating]
    ) -> None:
        """Add entries; no (row, column) may come twice."""
        entries = np.empty(len(row), dtype=_ENTRY)
        bucket = np.asarray(column) // self.width
        order = np.argsort(bucket, kind="stable")
        entries["row"], entries["column"], entries["value"] = row[order], column[order], value[order]
        ends = np.searchsorted(bucket[order], np.arange(len(self._files) + 1))
        for number, file in enumerate(self._files):
            file.write(entries[ends[number] : ends[number + 1]].tobytes())

    def columns(self) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """(first column, csr [rows, consecutive columns]) until all columns are through."""
        for number, file in enumerate(self._files):
            first = number * self.width
            file.flush()
            file.seek(0)
            entries = np.fromfile(file, dtype=_ENTRY)
            shape = (self.n_rows, min(self.width, self.n_columns - first))
            matrix = sparse.coo_matrix((entries["value"], (entries["row"], entries["column"] - first)), shape=shape)
            yield first, matrix.tocsr()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> ColumnStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
