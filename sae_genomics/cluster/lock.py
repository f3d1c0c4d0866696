"""One person at a time submits or locally runs a run; the lock says who holds it and since when.

A file made with O_EXCL, because flock does not reach across the nodes of many cluster file systems.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sae_genomics.atomic import read_json, remove_empty_folders, remove_leftovers, temporary_beside
from sae_genomics.errors import UserError
from sae_genomics.processes import process_start
from sae_genomics.run import Run


@contextmanager
def locked(run: Run, doing: str) -> Iterator[None]:
    """Hold `logs/<run>/lock` for the length of the block.

    doing: what the holder does, for the message to others: `submitting`, `running locally`.

    A lock left by a process of this host that is gone is taken over. Raises UserError naming the holder otherwise.
    """
    path = run.logs / "lock"
    mine = {
        "user": user_name(), "host": socket.gethostname(), "pid": os.getpid(), "started": process_start(os.getpid()),
        "doing": doing, "since": time.time(),
    }  # fmt: skip
    _take(path, mine, run.name)
    try:
        yield
    finally:
        held = read_json(path)
        if isinstance(held, dict) and held.get("pid") == mine["pid"] and held.get("host") == mine["host"]:
            path.unlink(missing_ok=True)
        remove_empty_folders(path.parent, up_to=run.config.paths.logs)


def _take(path: Path, mine: dict[str, Any], name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written whole under another name and linked: nobody ever reads half a lock.
    for folder in (path.parent, path.parent / "attempts", path.parent / "heartbeats"):
        remove_leftovers(folder)
    draft = temporary_beside(path)
    draft.write_text(json.dumps(mine), encoding="utf-8")
    try:
        for _ in range(3):
            try:
                os.link(draft, path)
                return
            except FileExistsError:
                held = read_json(path)
            except OSError:  # no hard links here (some FUSE and SMB file systems)
                try:
                    with open(path, "x", encoding="utf-8") as file:
                        json.dump(mine, file)
                    return
                except FileExistsError:
                    held = read_json(path)
            if not isinstance(held, dict):
                time.sleep(0.2)  # released, or being written, just now
                continue
            if _gone(held):
                _remove(path, held)
                continue
            raise UserError(_holder(held, path, name))
        raise UserError(f"cannot lock {path}; delete it when nobody else works on run {name}")
    finally:
        draft.unlink(missing_ok=True)


def _remove(path: Path, stale: dict[str, Any]) -> None:
    """Remove a lock that was left behind, unless another process has done so and taken the lock since it was looked at."""
    aside = path.with_name(f".stale-{socket.gethostname()}-{os.getpid()}-lock")
    try:
        os.rename(path, aside)  # of several processes that see the same stale lock one gets it
    except FileNotFoundError:
        return
    if read_json(aside) != stale:
        with suppress(FileExistsError):  # somebody took the lock in this very moment
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def refuse_if_locked(run: Run) -> None:
    """Raise UserError naming the holder when another process submits or locally runs this run."""
    path = run.logs / "lock"
    held = read_json(path)
    if isinstance(held, dict) and not _gone(held):
        raise UserError(_holder(held, path, run.name))


def _gone(held: dict[str, Any]) -> bool:
    """Whether the holder was a process of this host that ended without letting go."""
    if held.get("host") != socket.gethostname():
        return False
    return process_start(int(held.get("pid", 0))) != held.get("started")


def _holder(held: dict[str, Any], path: Path, name: str) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(held.get("since", 0))))
    return (
        f"run {name} is locked by {held.get('user')} on {held.get('host')} (process {held.get('pid')}), "
        f"{held.get('doing')}, since {since}; wait until that ends; if it has ended, remove the lock with: rm {path}"
    )


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return str(os.getuid())
