"""How a version of a published model is named: a branch, a tag, or a commit by all of its 40 hexadecimal digits."""

from __future__ import annotations

import re
from typing import Any

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_NOT_QUITE_A_COMMIT = re.compile(r"(?=.*[0-9])(?=.*[a-f])[0-9a-f]{6,}|[0-9a-f]{20,}")  # tags may be dates, 20260131
_LONGEST = 200


def is_commit(text: object) -> bool:
    """Whether this names one commit for good. Branches move, and tags may."""
    return isinstance(text, str) and _COMMIT.fullmatch(text) is not None


def checked_revision(value: Any) -> Any:
    """The value of `model.revision`, a commit in small letters. Raises ValueError where it cannot name a revision.

    The name becomes part of an address and of a path in the hub's cache, so that it must not lead elsewhere (`..`).
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("is a number for YAML; write the name of a branch or tag, or the commit, in quotes")
    lower = value.lower()
    if is_commit(lower):
        return lower
    if _NOT_QUITE_A_COMMIT.fullmatch(lower):
        raise ValueError(f"has {len(value)} hexadecimal digits; write all 40 digits of the commit")
    if not _NAME.fullmatch(value) or ".." in value or value.endswith(".lock") or len(value) > _LONGEST:
        raise ValueError("names no revision; write a branch, a tag, or all 40 hexadecimal digits of a commit")
    return value
