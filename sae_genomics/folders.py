"""Whether a run's folders can be written to: tried before anything is run or submitted, leaving nothing behind."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from sae_genomics.errors import DISK_ERRORS, UserError
from sae_genomics.run import Run


def check_folders(run: Run, below: str = "") -> None:
    """Raise UserError naming the first of paths.logs, paths.results and paths.checkpoints that this run cannot write to.

    below: a folder within each of the three, where not the run itself but something of it is written.
    """
    for key, root in (("logs", run.logs), ("results", run.results), ("checkpoints", run.checkpoints)):
        folder = root / below
        try:
            _try_writing(folder)
        except OSError as error:
            raise UserError(
                f"cannot write to the folder {folder}: {_words(folder, error)}; set paths.{key} to a folder that you can write to"
            ) from None


def _try_writing(folder: Path) -> None:
    made: list[Path] = []
    try:
        for each in reversed([folder, *folder.parents]):
            if not each.is_dir():
                each.mkdir()
                made.append(each)
        with tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        for each in reversed(made):
            with suppress(OSError):  # somebody writes there by now
                each.rmdir()


def _words(folder: Path, error: OSError) -> str:
    in_the_way = next((each for each in (folder, *folder.parents) if each.is_symlink() or each.exists()), folder)
    if not in_the_way.is_dir():
        return f"{in_the_way} is {'a link to nowhere' if not in_the_way.exists() else 'not a folder'}"
    return DISK_ERRORS.get(error.errno or 0) or f"{in_the_way} takes no new folder ({error.strerror})"
