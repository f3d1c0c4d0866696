"""JSON Lines: one object per line, plain or gzip. Whatever is wrong is told with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sae_genomics.data.lines import lines
from sae_genomics.errors import UserError


def json_lines(path: Path, example: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line that is not blank. example: an object as it should be, for the error.

    Raises UserError for a line that is not UTF-8, not JSON, or no object.
    """
    for number, text in lines(path):
        yield number, json_object(path, number, text, example)


def json_object(path: Path, number: int, text: str, example: str) -> dict[str, Any]:
    """The object of one line. Raises UserError as `json_lines` does."""
    try:
        entry = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not valid JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise UserError(f"{path}, line {number}: too many brackets inside brackets; correct the line") from None
    if not isinstance(entry, dict):
        raise UserError(f"{path}, line {number}: a JSONL line is one object, such as {example}")
    return entry
