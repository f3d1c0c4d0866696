"""Delimited text files of databases, read by column name, every cell as text."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pandas as pd

from sae_genomics.errors import UserError

_GZIP, _ZIP = b"\x1f\x8b", b"PK"


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
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, KeyError) as error:
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
) -> pd.DataFrame:
    """Columns of a table, all text, empty where a cell is empty; nothing is read as a number or as missing.

    needed, optional: columns to read; the optional ones are empty text where the file lacks them. names: the columns of a file without
    a header. quoted: cells may stand in quotes and hold line ends. skip: lines that begin with this before the header are passed over
    (a header that itself begins with # keeps its name without it). Raises UserError, in one line, for a missing column and for a row
    with more or fewer cells than the header.
    """
    with opened(path) as raw:
        text = io.TextIOWrapper(raw, encoding=encoding, newline="")
        try:
            header = list(names) if names is not None else _header(text, separator, skip, quoted)
            missing = [name for name in needed if name not in header]
            if missing:
                raise UserError(
                    f"{path} has no column {missing[0]!r}; it begins with {', '.join(header)[:120]}: its layout has changed, or it is another file"
                )
            frame = pd.read_csv(
                text, sep=separator, header=None, names=header, dtype=str, keep_default_na=False, na_filter=False, index_col=False,
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, usecols=[*needed, *(name for name in optional if name in header)],
                on_bad_lines="error", skip_blank_lines=True,
            )  # fmt: skip
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not {encoding} text ({error.reason}); fetch it again") from None
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            if isinstance(error, pd.errors.EmptyDataError):
                frame = pd.DataFrame({name: pd.Series(dtype=str) for name in needed})
            else:
                first = str(error).strip().splitlines()[-1]
                raise UserError(f"{path} is damaged or cut off: {first}; fetch it again") from None
    for name in optional:
        if name not in frame:
            frame[name] = ""
    return frame[[*needed, *optional]]


def _header(text: io.TextIOWrapper, separator: str, skip: str, quoted: bool) -> list[str]:
    """The names of the header line; the lines before it that begin with `skip` are passed over."""
    line = text.readline()
    while skip and line.startswith(skip):
        line = text.readline()
    line = line.removeprefix("\ufeff").rstrip("\r\n")
    cells = next(csv.reader([line], delimiter=separator)) if quoted else line.split(separator)
    return [cell.strip().removeprefix("#").strip() for cell in cells]
