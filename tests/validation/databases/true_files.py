"""What the tests of readers share: files written row by row, real excerpts, and the sum of what was read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from sae_genomics.validation.normal_form.statements import Statements

# A folder of real excerpts, one folder for each source; they are the databases' property and no part of the project.
EXCERPTS = "DATABASE_EXCERPTS"


def excerpt(source: str) -> Path:
    """The excerpt of a source; the test is skipped where there is none."""
    folder = Path(os.environ.get(EXCERPTS, ""), source)
    if not os.environ.get(EXCERPTS) or not folder.is_dir():
        pytest.skip(f"set {EXCERPTS} to a folder of real excerpts that has {source}")
    return folder


def write_rows(path: Path, rows: Iterable[Iterable[str]], before: str = "", end: str = "\n") -> Path:
    """A tab-separated file."""
    path.write_bytes((before + "".join("\t".join(row) + end for row in rows)).encode())
    return path


def adds_up(statements: Statements) -> bool:
    """Every row that was read is a statement, or was left out for a reason that is counted."""
    assert statements.terms is not None
    return statements.rows_read == len(statements.terms) + sum(statements.dropped.values())
