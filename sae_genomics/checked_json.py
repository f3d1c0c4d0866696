"""JSON files that carry a check value over their own bytes, so that a changed byte shows where the JSON is still valid.

The check value is the last entry: 32 hexadecimal digits of BLAKE2b over all other bytes of the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from sae_genomics.atomic import json_text, write_text
from sae_genomics.errors import DamagedArtifact, not_as_written

_KEY = "check"
_NAME = f'"{_KEY}"'.encode()
_DIGITS = 32
_END = b'"\n}\n'  # what follows the digits
_HEXADECIMAL = re.compile(rb"[0-9a-f]{32}")


def write_checked_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object atomically, with its check value."""
    text = json_text({**value, _KEY: "0" * _DIGITS})
    digest = _digest(text.encode())
    write_text(path, f"{text[: -_DIGITS - len(_END)]}{digest}{_END.decode()}")


def read_checked_json(path: Path) -> dict[str, Any] | None:
    """The object, without its check value; None when the file is not there.

    A file that an earlier version wrote has no check value, and is believed.
    Raises DamagedArtifact when the file is not as it was written.
    """
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    digits = content[-_DIGITS - len(_END) : -len(_END)]
    # One of the two signs of a check value may be what is damaged.
    has_one = _NAME in content[-_DIGITS - len(_END) - 16 :] or _HEXADECIMAL.fullmatch(digits)
    if has_one and digits != _digest(content).encode():
        raise _damaged(path)
    try:
        value = json.loads(content)
    except ValueError:
        raise _damaged(path) from None
    if not isinstance(value, dict):
        raise _damaged(path)
    value.pop(_KEY, None)
    return value


def read_if_whole(path: Path) -> dict[str, Any] | None:
    """The object; None when it is not there or damaged."""
    try:
        return read_checked_json(path)
    except DamagedArtifact:
        return None


def _digest(content: bytes) -> str:
    digest = hashlib.blake2b(content[: -_DIGITS - len(_END)], digest_size=_DIGITS // 2)
    digest.update(content[-len(_END) :])
    return digest.hexdigest()


def _damaged(path: Path) -> DamagedArtifact:
    return DamagedArtifact(not_as_written(path), path)
