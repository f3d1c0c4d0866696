"""A file that HDF5 writes through, so that a full disk is the operating system's error and not HDF5's end.

When a write fails inside HDF5, what it still holds can never be flushed: closing fails, and the process crashes when it
ends. Here HDF5 never hears of it. The error is kept, later writes are dropped, and `check` raises it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

_to_disk = getattr(os, "fdatasync", os.fsync)


class OutputFile(io.RawIOBase):
    """Read and write access to a new file at `path`, for h5py.File(output, "w")."""

    def __init__(self, path: Path):
        self._path = path
        self._problem: OSError | None = None
        self._position = self._end = 0
        self.last_write = (0, 0)  # where the last write began, and its bytes
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)

    def check(self) -> None:
        """Raise the first error of writing, if there was one, with the file's name."""
        if self._problem is not None:
            raise OSError(self._problem.errno, self._problem.strerror, str(self._path))

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.last_write = (self._position, len(view))
        done = 0
        while self._problem is None and done < len(view):
            try:
                done += os.pwrite(self._descriptor, view[done:], self._position + done)
            except OSError as problem:
                self._problem = problem
        self._position += len(view)
        self._end = max(self._end, self._position)
        return len(view)

    def to_disk(self) -> None:
        """Wait until what was written so far is on the disk. An error is kept like that of a write; another thread may write."""
        try:
            _to_disk(self._descriptor)
        except OSError as problem:
            self._problem = self._problem or problem

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        found = os.pread(self._descriptor, len(view), self._position)
        if self._problem is not None:
            found = found.ljust(len(view), b"\0")
        n = len(found)
        view[:n] = found
        self._position += n
        return n

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self._end = self._position if size is None else size
        if self._problem is None:
            try:
                os.ftruncate(self._descriptor, self._end)
            except OSError as problem:
                self._problem = problem
        return self._end

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)
