"""Whether the disks can hold what a run will write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from sae_genomics.atomic import PREFIX
from sae_genomics.errors import UserError


def check_disk(needs: Mapping[Path, int], what: str, advice: str) -> None:
    """Raise UserError when a file system has less room than what is to be written to it.

    needs: folder (it need not exist yet) -> further bytes. Folders of one file system are added up.
    what: named in the error, `this run` for example. advice: what to do, a clause.
    """
    wanted: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for folder, n_bytes in needs.items():
        existing = nearest_existing(folder)
        device = os.stat(existing).st_dev
        wanted[device] = wanted.get(device, 0) + n_bytes
        folders.setdefault(device, existing)
    for device, n_bytes in wanted.items():
        free = free_bytes(folders[device])
        if n_bytes > free:
            raise UserError(
                f"disk too small: {what} needs about {size_text(n_bytes)} more under {folders[device]}, where "
                f"{size_text(free)} are free; {advice}"
            )


def free_bytes(folder: Path) -> int:
    """Room on the file system of a folder that need not exist yet."""
    return shutil.disk_usage(nearest_existing(folder)).free


def nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = Path(folder).absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def bytes_under(folder: Path) -> int:
    """Bytes of all files in a folder and those below it, temporary ones left out; 0 when it is not there.

    Temporary files of a killed process are removed by the next attempt, which then writes them from the beginning.
    """
    total = 0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith(PREFIX):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
    return total


def size_text(n_bytes: float) -> str:
    """`950 KB`, `1.4 GB`: decimal units, as disks are sold."""
    units = ["TB", "GB", "MB", "KB", "bytes"]
    while n_bytes >= 999.5 and len(units) > 1:
        n_bytes /= 1000
        units.pop()
    unit = units[-1]
    return f"{n_bytes:,.0f} {unit}" if n_bytes >= 99.5 or unit == "bytes" else f"{n_bytes:.1f} {unit}"
