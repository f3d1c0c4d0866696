"""What the tests of readers share: files written row by row, and the sum of what was read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sae_genomics.validation.normal_form.statements import Statements


def write_rows(path: Path, rows: Iterable[Iterable[str]], before: str = "", end: str = "\n") -> Path:
    """A tab-separated file."""
    path.write_bytes((before + "".join("\t".join(row) + end for row in rows)).encode())
    return path


def adds_up(statements: Statements) -> bool:
    """Every row that was read is a statement, or was left out for a reason that is counted."""
    assert statements.terms is not None
    return statements.rows_read == len(statements.terms) + sum(statements.dropped.values())
