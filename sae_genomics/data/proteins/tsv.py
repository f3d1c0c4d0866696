"""Tab-separated tables with a header line, plain or gzip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sae_genomics.data.proteins.files import lines
from sae_genomics.errors import UserError


@dataclass(frozen=True)
class TextTable:
    """columns: name -> texts, in the file's order. line: int64 [rows], of the file, from 1."""

    columns: dict[str, list[str]]
    line: npt.NDArray[np.int64]


def read_tsv(path: Path, needed: tuple[str, ...]) -> TextTable:
    """Read a table. needed: columns that must be there.

    Raises UserError naming the line for a missing column, and for a row with more or fewer fields than the header.
    """
    rows = iter(lines(path))
    number, text = next(rows, (1, ""))
    names = [name.strip() for name in text.removeprefix("#").split("\t")]
    missing = [name for name in needed if name not in names]
    if missing:
        hint = " (columns are separated by tabs)" if "\t" not in text else ""
        found = ", ".join(names)
        raise UserError(
            f"{path}, line {number}: no column {' and no column '.join(missing)}; the first line names the columns "
            f"{', '.join(needed)}{hint}, but it is {found[:80]!r}"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path}, line {number}: two columns are called {twice[0]!r}; rename one")
    read = [(number, text.split("\t")) for number, text in rows]
    for number, fields in read:
        if len(fields) != len(names):
            raise UserError(
                f"{path}, line {number}: {len(fields)} fields, but the header has {len(names)} columns ({', '.join(names)[:80]})"
            )
    columns = {name: [fields[i].strip() for _, fields in read] for i, name in enumerate(names)}
    return TextTable(columns, np.array([number for number, _ in read], dtype=np.int64))
