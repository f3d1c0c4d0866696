"""Tab-separated tables with a header line, plain or gzip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from sae_genomics.data.lines import first_bytes, opened, skip_mark
from sae_genomics.errors import UserError

_TAB, _END, _RETURN = ord("\t"), ord("\n"), ord("\r")
_BLANKS = np.array(list(b" \t\r\n\v\f"), dtype=np.uint8)


@dataclass(frozen=True)
class TextTable:
    """columns: name -> object [rows], texts without blanks around them. line: int64 [rows], of the file, from 1."""

    columns: dict[str, npt.NDArray[np.object_]]
    line: npt.NDArray[np.int64]


def read_tsv(path: Path, needed: tuple[str, ...]) -> TextTable:
    """Read a table. needed: columns that must be there.

    Raises UserError naming the line for a missing column, and for a row with more or fewer fields than the header.
    """
    first_bytes(path)  # an empty file, or one of another format, is refused
    with opened(path) as file:
        skip_mark(file)
        data = np.frombuffer(file.read() + b"\n", np.uint8)
    ends = np.flatnonzero(data == _END)
    starts = np.concatenate([[0], ends[:-1] + 1])
    n_text = np.add.reduceat(~np.isin(data, _BLANKS), starts)  # of each line
    line = np.flatnonzero(n_text > 0)
    names = _names(path, int(line[0]) + 1, _decoded(path, data, starts[line[0]], ends[line[0]]), needed)
    rows = line[1:]
    n_fields = np.add.reduceat(data == _TAB, starts)[rows] + 1
    wrong = np.flatnonzero(n_fields != len(names))
    if len(wrong):
        raise UserError(
            f"{path}, line {rows[wrong[0]] + 1}: {n_fields[wrong[0]]} fields, but the header has {len(names)} columns "
            f"({', '.join(names)[:80]})"
        )
    is_row = np.zeros(len(starts), dtype=bool)
    is_row[rows] = True
    body = data[np.repeat(is_row, ends - starts + 1) & (data != _RETURN)]  # the parser would see a line end in each
    return TextTable(_columns(path, data, body, names), rows + 1)


def _names(path: Path, number: int, text: str, needed: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in text.removeprefix("#").split("\t")]
    missing = [name for name in needed if name not in names]
    if missing:
        hint = " (columns are separated by tabs)" if "\t" not in text else ""
        raise UserError(
            f"{path}, line {number}: no column {' and no column '.join(missing)}; the first line names the columns "
            f"{', '.join(needed)}{hint}, but it is {', '.join(names)[:80]!r}"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path}, line {number}: two columns are called {twice[0]!r}; rename one")
    return names


def _columns(
    path: Path, data: npt.NDArray[np.uint8], body: npt.NDArray[np.uint8], names: list[str]
) -> dict[str, npt.NDArray[np.object_]]:
    """body: rows that have one field per name each."""
    if not len(body):
        return {name: np.empty(0, dtype=object) for name in names}
    try:
        table = pyarrow.csv.read_csv(
            pa.py_buffer(body.tobytes()),
            pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
            pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        _decoded(path, data, 0, len(data))  # says in which line it is no text
        raise UserError(f"{path} cannot be read: {error}") from None
    return {name: pc.utf8_trim_whitespace(table[name]).to_pandas().to_numpy(dtype=object) for name in names}


def _decoded(path: Path, data: npt.NDArray[np.uint8], start: int, stop: int) -> str:
    try:
        return data[start:stop].tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        number = int(np.count_nonzero(data[: start + error.start] == _END)) + 1
        raise UserError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8") from None
