"""The row-wise copy of a run's counts: opened, verified, and made again where it is lost or damaged.

A record beside the copy holds what it was made from and its content hash (`content.py`). Opening a large copy verifies its structure;
its chunks have checksums, which reading verifies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import h5py
from scipy.sparse import csr_matrix

from sae_genomics import content
from sae_genomics.checked_json import read_checked_json
from sae_genomics.claims import claim, release
from sae_genomics.data.cells.by_rows import copy_by_rows, copy_bytes, record_file
from sae_genomics.data.cells.matrix import CscMatrix, CsrMatrix, Rows, StoredMatrix
from sae_genomics.data.disk import check_disk
from sae_genomics.errors import DamagedArtifact, UserError, not_as_written
from sae_genomics.progress import say
from sae_genomics.stages import stage_named

if TYPE_CHECKING:
    from sae_genomics.data.cells.h5ad import CellTable
    from sae_genomics.run import Run

Read = TypeVar("Read")
_verified: set[tuple[str, int, int, int]] = set()  # copies that this process has verified: path, inode, size, time


def copy_file(run: Run) -> Path:
    """Where the copy of a run's counts stands, where one is needed."""
    return run.checkpoints / "counts_by_row.h5"


class RowCopy(CsrMatrix):
    """A copy that is made again when reading finds it damaged; reading then goes on where it was.

    open_file: opens the copy, and makes it where there is none.
    """

    def __init__(self, where: str, path: Path, open_file: Callable[[], h5py.File]):
        self._path, self._open_file = path, open_file
        self._use(where, open_file())

    def _use(self, where: str, file: h5py.File) -> None:
        shape = file["X"].attrs["shape"]
        super().__init__(where, file["X"], (int(shape[0]), int(shape[1])))

    def _bounds(self, rows: Rows) -> tuple[Rows, Rows]:
        return self._surely(lambda: CsrMatrix._bounds(self, rows))

    def _read(self, starts: Rows, stops: Rows, max_values: int) -> csr_matrix:
        return self._surely(lambda: CsrMatrix._read(self, starts, stops, max_values))

    def _surely(self, read: Callable[[], Read]) -> Read:
        try:
            return read()
        except UserError:
            self._renew()
        try:
            return read()
        except UserError as error:
            raise DamagedArtifact(str(error), self._path) from None

    def _renew(self) -> None:
        mine = os.fstat(self._data.file.id.get_vfd_handle())
        self.close()
        if self._path.exists() and os.path.samestat(mine, os.stat(self._path)):  # nobody else made it again yet
            _discard(not_as_written(self._path), self._path)
        self._use(self.where, self._open_file())


@contextmanager
def open_by_rows(
    run: Run, table: CellTable, where: str, used_rows: Callable[[], Rows]
) -> Iterator[tuple[StoredMatrix, bool]]:
    """A matrix of the run's input that can be read by rows, and whether it is a copy whose row i is the i-th cell used.

    used_rows: gives all rows that the run uses; asked for only when a copy must be made.

    A copy is kept in the run's checkpoints for the stages that follow and made again when it is not there, or damaged. Raises
    UserError when the disk cannot hold it.
    """
    matrix = table.matrix(where)
    if not isinstance(matrix, CscMatrix):
        yield matrix, False
        return
    copy = RowCopy(where, copy_file(run), lambda: _opened(run, matrix, used_rows))
    try:
        yield copy, True
    finally:
        copy.close()


def open_copy(path: Path, key: str) -> h5py.File | None:
    """The copy at `path`; None when it is not there, was made from something else, or is damaged, which is said."""
    try:
        entry = read_checked_json(record_file(path))
        if entry is None or entry.get("key") != key or not path.exists():
            return None
        state = os.stat(path)
        mark = (os.fspath(path), state.st_ino, state.st_size, state.st_mtime_ns)
        if mark not in _verified:
            content.check(path, entry)
            _verified.add(mark)
        return h5py.File(path, "r", locking=False)
    except DamagedArtifact as damage:
        _discard(str(damage), path)
    except OSError as error:
        _discard(f"{path} cannot be read: {error}", path)
    return None


def _opened(run: Run, source: CscMatrix, used_rows: Callable[[], Rows]) -> h5py.File:
    """The open copy. One process makes it where there is none; the others wait for it."""
    path, claimed = copy_file(run), run.logs / "claims" / "counts_by_row.json"
    key = f"{run.base_fingerprint(stage_named('prepare'))} {source.where}"
    file, made = open_copy(path, key), False
    while file is None:
        if made:
            raise DamagedArtifact(f"{path} cannot be read back", path)
        check_disk({path.parent: copy_bytes(source)}, f"a row-wise copy of {source.where}", "lower data.max_cells")
        if claim(claimed, sign=path, what=f"the row-wise copy of {source.where}"):
            made = True
            try:
                copy_by_rows(source, used_rows(), path, key)
            finally:
                release(claimed, up_to=run.config.paths.logs)
        file = open_copy(path, key)
    return file


def _discard(problem: str, path: Path) -> None:
    say(f"{problem}; it is made again")
    record_file(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
