"""Delimited text files of databases, read by column name, every cell as text."""

from __future__ import annotations

import csv
import gzip
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from sae_genomics.errors import UserError

_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_BLOCK = 16 << 20  # bytes that are parsed at once; no row is longer


def find(folder: Path, names: Sequence[str], source: str) -> Path:
    """The first of several official names that is there. Raises UserError naming all of them."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise UserError(
        f"{source}: none of {', '.join(names)} is in {folder}; run scripts/download_databases.py --only {source}"
    )


@contextmanager
def opened(path: Path, member: str | None = None) -> Iterator[IO[bytes]]:
    """A file's bytes, of a gzip or zip file those inside. member: of a zip file; default: its only one.

    Raises UserError for an empty file, a page of HTML, and a damaged or truncated archive.
    """
    try:
        with path.open("rb") as raw:
            first = raw.read(512)
        if not first.strip():
            raise UserError(f"{path} is empty; fetch it again")
        if first.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
            raise UserError(f"{path} is a web page and not a table: a key has expired, or the address has changed")
        if first.startswith(_GZIP):
            with gzip.open(path) as file:
                yield file  # type: ignore[misc]
        elif first.startswith(_ZIP):
            with zipfile.ZipFile(path) as archive, archive.open(member or _only_member(archive, path)) as file:
                yield file
        else:
            with path.open("rb") as file:
                yield file
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise UserError(f"{path} is damaged or cut off ({error}); fetch it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _only_member(archive: zipfile.ZipFile, path: Path) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        raise UserError(f"{path} holds {len(names)} files and should hold one; fetch it again")
    return names[0]


def read_text_table(
    path: Path,
    needed: Sequence[str],
    *,
    optional: Sequence[str] = (),
    names: Sequence[str] | None = None,
    separator: str = "\t",
    quoted: bool = False,
    skip: str = "",
    encoding: str = "utf-8",
    short_rows: bool = False,
) -> pd.DataFrame:
    """Columns of a table, all text, empty where a cell is empty; nothing is read as a number or as missing.

    needed, optional: columns to read; the optional ones are empty text where the file lacks them. names: the columns of a file without
    a header. quoted: cells may stand in quotes and hold line ends. skip: lines that begin with this before the header are passed over
    (a header that itself begins with # keeps its name without it); in a file without a header, wherever they stand. short_rows: rows may end early, and come last then; their missing
    cells are empty. Raises UserError, in one line, for a missing column and for a row with more or fewer cells than the header.
    """
    with opened(path) as raw:
        try:
            header = list(names) if names is not None else _header(raw, separator, skip, quoted, encoding)
            _check_header(path, header, needed)
            wanted = [*needed, *(name for name in optional if name in header)]
            comment = skip if names is not None else ""
            frame = _parsed(raw, header, wanted, separator, quoted, encoding, short_rows, comment)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not {encoding} text ({error.reason}); fetch it again") from None
        except pa.ArrowInvalid as error:
            first = str(error).strip().splitlines()[0][:200]
            raise UserError(f"{path} is damaged or cut off: {first}; fetch it again") from None
    for name in optional:
        if name not in frame:
            frame[name] = ""
    return frame[[*needed, *optional]]


def _check_header(path: Path, header: list[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(
            f"{path} has no column {missing[0]!r}; it begins with {', '.join(header)[:120]}: its layout has changed, or it is another file"
        )
    twice = [name for name in needed if header.count(name) > 1]
    if twice:
        raise UserError(f"{path} has two columns {twice[0]!r}: its layout has changed, or it is another file")


def _parsed(
    raw: IO[bytes], header: list[str], wanted: list[str], separator: str, quoted: bool, encoding: str, short_rows: bool, comment: str
) -> pd.DataFrame:  # fmt: skip
    """The rows after the header. pyarrow's parser is used because pandas' fills rows that end early without a word."""
    short: list[str] = []

    def passed_over(row: arrow_csv.InvalidRow) -> str:
        if comment and row.text.startswith(comment):
            return "skip"
        if not short_rows or row.actual_columns > row.expected_columns:
            return "error"
        short.append(row.text)
        return "skip"

    # Columns that are not read get numbers as names: two of one name would be refused.
    columns = [name if name in wanted else f"column {i}" for i, name in enumerate(header)]
    try:
        table = arrow_csv.read_csv(
            raw,
            read_options=arrow_csv.ReadOptions(column_names=columns, encoding=encoding, block_size=_BLOCK),
            parse_options=arrow_csv.ParseOptions(
                delimiter=separator, quote_char='"' if quoted else False, newlines_in_values=quoted, invalid_row_handler=passed_over
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), include_columns=wanted, strings_can_be_null=False
            ),
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):
            raise
        table = pa.table({name: pa.array([], pa.string()) for name in wanted})
    frame = table.to_pandas()
    if not short:
        return frame
    rows = csv.reader(short, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    filled = pd.DataFrame([row + [""] * (len(header) - len(row)) for row in rows], columns=columns, dtype=object)
    return pd.concat([frame, filled[wanted]], ignore_index=True)


def _header(raw: IO[bytes], separator: str, skip: str, quoted: bool, encoding: str) -> list[str]:
    """The names of the header line; the lines before it that begin with `skip` are passed over."""
    line = raw.readline().decode(encoding).removeprefix("\ufeff")
    while skip and line.startswith(skip):
        line = raw.readline().decode(encoding)
    line = line.rstrip("\r\n")
    cells = next(csv.reader([line], delimiter=separator)) if quoted else line.split(separator)
    return [cell.strip().removeprefix("#").strip() for cell in cells]
