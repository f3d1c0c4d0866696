"""Large delimited text files of databases, read in batches: millions of rows, of which a reader keeps a part."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.text_tables import opened

_HEADER_BYTES = 1 << 20
_BATCH_BYTES = 1 << 24


def read_batches(
    path: Path,
    needed: Sequence[str],
    *,
    optional: Sequence[str] = (),
    types: Mapping[str, pa.DataType] | None = None,
    names: Sequence[str] | None = None,
    separator: str = "\t",
    skip_rows: int = 0,
) -> Iterator[pa.RecordBatch]:
    """Rows of a table in batches; cells are text unless `types` says else. Nothing is quoted and nothing is read as missing.

    needed, optional: columns to read; an optional one that the file lacks is not in the batches. names: the columns of a file without
    a header; then skip_rows lines are passed over. A header's first name may begin with #. Raises UserError, in one line, for a missing column, a row with more or fewer cells
    than the header, a cell that is not of its type, and a file that is cut off.
    """
    try:
        with opened(path) as raw:
            header = list(names) if names is not None else _header(raw.readline(_HEADER_BYTES), separator, path)
            missing = [name for name in needed if name not in header]
            if missing:
                raise UserError(
                    f"{path} has no column {missing[0]!r}; it begins with {', '.join(header)[:120]}: its layout has changed, or it is "
                    "another file"
                )
            wanted = [*needed, *(name for name in optional if name in header)]
            kinds = {name: (types or {}).get(name, pa.string()) for name in wanted}
            with csv.open_csv(
                raw,
                csv.ReadOptions(column_names=header, block_size=_BATCH_BYTES, use_threads=False, skip_rows=skip_rows),
                csv.ParseOptions(delimiter=separator, quote_char=False, newlines_in_values=False),
                csv.ConvertOptions(
                    column_types=kinds, include_columns=wanted, null_values=[], strings_can_be_null=False
                ),
            ) as reader:
                yield from reader
    except (pa.ArrowInvalid, UnicodeDecodeError, zlib.error) as error:
        if "Empty CSV file" in str(error):  # a header alone: the reader of the source says so
            return
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is damaged or cut off: {first}; fetch it again") from None


def read_all(path: Path, needed: Sequence[str], source: str, names: Sequence[str] | None = None) -> pa.Table:
    """A small file whole, as text. Raises UserError as `read_batches` does, and for a file without rows."""
    table = pa.Table.from_batches(
        read_batches(path, needed, names=names), pa.schema([(name, pa.string()) for name in needed])
    )
    if not table.num_rows:
        raise no_rows(path, source)
    return table


def no_rows(path: Path, source: str) -> UserError:
    """A file that has a header at most."""
    return UserError(f"{path} has no rows; run scripts/download_databases.py --only {source} again")


def _header(line: bytes, separator: str, path: Path) -> list[str]:
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}); fetch it again") from None
    return [cell.strip().removeprefix("#").strip() for cell in text.split(separator)]
