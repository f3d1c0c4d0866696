"""Files appear whole or not at all: written under a temporary name in the same folder, flushed, renamed."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.processes import process_start

PREFIX = ".partial-"
UNFINISHED = ".unfinished-"  # of files that a later attempt goes on from
# Hosts' names have dashes and dots too; the dot within the process tells where such a name ends.
_PARTS = re.compile(r"(?P<host>.+)-(?P<pid>\d+)\.(?P<started>\d+|alive|None)-\d+-(?P<final>.+)")
_PARTS_OF_OLD = re.compile(r"(?P<host>.+)-(?P<pid>\d+)-\d+-(?P<final>.+)")  # as earlier versions named them

_count = itertools.count()  # several threads may write files of one name


@contextmanager
def atomic_path(path: Path, prefix: str = PREFIX, keep: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving the block well, flush it and rename it to `path`.

    When the block raises, the temporary file is removed, unless `keep` says of it that a later attempt goes on from it; what
    stood at `path` stays. The suffix is kept, because some writers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path, prefix)
    try:
        yield temporary
        put_in_place(temporary, path)
    except OSError as error:
        removed = _removed(error, temporary, path)
        if removed is None:
            raise
        raise removed from None
    finally:
        if keep is None or not keep(temporary):
            temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """An empty folder in `parent` for files that are written and then renamed; it is removed in the end."""
    folder = temporary_beside(parent / name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_beside(path: Path, prefix: str = PREFIX) -> Path:
    """A name in the folder of `path` that says which process writes it: `.partial-<host>-<pid>.<its start>-<count>-<name>`."""
    return path.parent / f"{prefix}{_this_process(os.getpid())}-{next(_count)}-{path.name}"


@cache
def _this_process(pid: int) -> str:
    return f"{socket.gethostname()}-{pid}.{process_start(pid)}"


def put_in_place(temporary: Path, path: Path) -> None:
    """Flush a whole file and give it its name."""
    _flush(temporary)
    os.replace(temporary, path)
    _flush(path.parent)


def _removed(error: OSError, temporary: Path, path: Path) -> UserError | None:
    """What to say where somebody removed a file while it was written; None for any other error."""
    named = error.filename is not None and os.fspath(error.filename) == os.fspath(temporary)
    if not (isinstance(error, FileNotFoundError) and named) and error.errno != errno.ESTALE:
        return None
    if temporary.exists():
        return None
    return UserError(
        f"{path}: its temporary file {temporary.name} was removed while it was written, by another attempt at the same task or "
        "by hand; nothing damaged is left: wait until the other attempt has ended, then type the same command again"
    )


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """JSON that is readable by eye; NaN is refused because JSON has none."""
    return json.dumps(value, indent=1, sort_keys=False, allow_nan=False, default=_plain) + "\n"


def read_json(path: Path) -> Any | None:
    """The file's value, or None when it is not there or not (yet) readable as JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None


@dataclass(frozen=True)
class Partial:
    """A temporary file or folder, and the process that writes or wrote it.

    host, pid, started: of that process; started is None where the name does not say. final: the name it was to get.
    """

    path: Path
    host: str
    pid: int
    started: str | None
    final: str

    @property
    def is_of_this_host(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def is_of_a_dead_process(self) -> bool:
        """Whether it is known here that its process has ended."""
        if not self.is_of_this_host:
            return False
        started = process_start(self.pid)
        return started is None or (self.started is not None and started != self.started)

    def modified(self) -> float:
        """When it was last written to, seconds since the epoch; 0 when it is gone."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

    def remove(self) -> None:
        """Remove it. One that is gone or cannot be removed is no error: it is in nobody's way."""
        try:
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path)
            else:
                self.path.unlink()
        except OSError:
            pass


def partial_named(path: Path, prefix: str = PREFIX) -> Partial | None:
    """What a path's name says, where it is one of `temporary_beside`'s."""
    if not path.name.startswith(prefix):
        return None
    parts = path.name.removeprefix(prefix)
    found = _PARTS.fullmatch(parts) or _PARTS_OF_OLD.fullmatch(parts)
    if found is None:
        return None
    values = found.groupdict()
    return Partial(path, values["host"], int(values["pid"]), values.get("started"), values["final"])


def partials_in(folder: Path, prefix: str = PREFIX) -> list[Partial]:
    """Temporary files and folders directly in `folder`."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(prefix)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [partial for name in names if (partial := partial_named(folder / name, prefix)) is not None]


def remove_leftovers(folder: Path, has_ended: Callable[[Partial], bool] | None = None, prefix: str = PREFIX) -> None:
    """Remove temporary files and folders that a killed process left directly in `folder`.

    has_ended: tells of processes on other hosts; without it only those of this host are removed.
    """
    for partial in partials_in(folder, prefix):
        if partial.is_of_a_dead_process or (
            has_ended is not None and not partial.is_of_this_host and has_ended(partial)
        ):
            partial.remove()


def remove_empty_folders(folder: Path, up_to: Path) -> None:
    """Remove `folder` and the folders above it, up to and including `up_to`, as far as they are empty."""
    while folder != folder.parent and folder.is_relative_to(up_to):
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = folder.parent


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
