"""One process at a time makes a damaged file again; the others wait for it. A file made with O_EXCL says who does."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from sae_genomics.atomic import remove_empty_folders
from sae_genomics.processes import is_alive
from sae_genomics.progress import say, stop_point

SILENT_SECONDS = 600.0  # a process of another host that gave no sign for so long has ended
_LOOK_SECONDS = 0.5


def claim(path: Path, sign: Path, what: str) -> bool:
    """Make `path` this process' claim; True when it is, False when another process held it and has let go since.

    sign: a file that the work at hand touches every few seconds. what: the work, for the line that says what is waited for.

    A claim whose process has ended is taken over. Raises Interrupted while waiting, when a signal asks to stop.
    """
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    waited = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="utf-8") as file:
                file.write(mine)
        except FileExistsError:
            pass
        except FileNotFoundError:  # another process let go just now, and removed the empty folder
            continue
        else:
            if waited:  # what was claimed is done: the caller looks again
                release(path, path.parent)
                return False
            return True
        held = _content(path)
        if held is not None and _has_ended(path, sign, held):
            _take_away(path, held)
            continue
        if not waited:
            say(f"{what} is being made again by another process; waiting for it")
            waited = True
        stop_point()
        time.sleep(_LOOK_SECONDS)


def wait_for(path: Path, sign: Path, what: str) -> None:
    """Return when nobody holds the claim. Raises Interrupted while waiting, when a signal asks to stop."""
    if path.exists() and claim(path, sign, what):
        release(path, path.parent)


def release(path: Path, up_to: Path) -> None:
    """Let go of a claim. up_to: the last folder to remove when it is empty."""
    path.unlink(missing_ok=True)
    remove_empty_folders(path.parent, up_to=up_to)


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _has_ended(path: Path, sign: Path, held: str) -> bool:
    try:
        holder = json.loads(held)
        host, pid = holder["host"], int(holder["pid"])
    except (ValueError, TypeError, KeyError):  # being written, or damaged
        host, pid = "", 0
    if host == socket.gethostname():
        return not is_alive(pid)
    return time.time() - max(_time(path), _time(sign)) > SILENT_SECONDS


def _time(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _take_away(path: Path, held: str) -> None:
    """Remove the claim of a process that has ended. Where another process claims at this very moment, its claim stays."""
    aside = path.with_name(f"{path.name}.ended-{socket.gethostname()}-{os.getpid()}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _content(aside) != held:
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)
