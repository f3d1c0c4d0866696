"""Files appear whole or not at all: written under a temporary name in the same folder, flushed, renamed."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PREFIX = ".partial-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving the block well, flush it and rename it to `path`.

    When the block raises, the temporary file is removed and what stood at `path` stays.
    The suffix is kept, because some writers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{_PREFIX}{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}-{path.name}"
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, readable by eye; NaN is refused because JSON has none."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False, allow_nan=False, default=_plain) + "\n")


def read_json(path: Path) -> Any | None:
    """The file's value, or None when it is not there or not (yet) readable as JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed process of this host left directly in `folder`."""
    for leftover in folder.glob(f"{_PREFIX}{socket.gethostname()}-*"):
        pid = leftover.name.removeprefix(f"{_PREFIX}{socket.gethostname()}-").split("-")[0]
        if pid.isdigit() and not is_alive(int(pid)):
            leftover.unlink(missing_ok=True)


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


def is_alive(pid: int) -> bool:
    """Whether a process of this host exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
