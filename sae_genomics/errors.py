"""The three ways a command ends other than well, and their exit codes."""

from __future__ import annotations

import errno
from pathlib import Path

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_REQUEUE = 75


class UserError(Exception):
    """Something the user can fix. The message is one line: what is wrong, where, and what to type next."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class Interrupted(Exception):
    """A signal asked the task to stop; everything needed to go on is saved. Ends with exit code 75."""


class DamagedArtifact(Exception):
    """A file that was complete once cannot be read now. The pipeline names it and makes it again.

    path: that file.
    """

    def __init__(self, message: str, path: Path):
        super().__init__(message)
        self.path = path


def not_as_written(file: Path | str) -> str:
    """What is said of a file whose content hash, or check value, differs from what was recorded. file: its path or name."""
    return f"{file} is damaged: its content is not what was written"


# A disk that is full, read-only or not ours is the reader's to mend; other operating system errors are bugs.
DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
}


def one_line(error: BaseException) -> str | None:
    """What to tell the reader of an error that they can mend; None when it is a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, DamagedArtifact):
        return f"{error}; delete {error.path} and run the same command again to make it anew"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = error.filename or "while writing"
        return (
            f"{DISK_ERRORS[error.errno]}: {where}; nothing finished is lost: mend that and type the same command again"
        )
    # HDF5 reports a full disk as its own error, with the system's message inside.
    if isinstance(error, OSError | RuntimeError) and "No space left on device" in str(error):
        return "the disk is full; nothing finished is lost: make room and type the same command again"
    return None
