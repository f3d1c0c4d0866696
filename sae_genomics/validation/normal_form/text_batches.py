"""Delimited text files of databases that are too large to be held whole, read by column name, some thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.text_tables import opened

BATCH_BYTES = 1 << 24


def text_batches(
    path: Path, needed: Sequence[str], *, separator: str = "\t", batch_bytes: int = BATCH_BYTES
) -> Iterator[pd.DataFrame]:
    """Columns of a table without quoted cells, as data frames of consecutive rows; all cells are text, empty where a cell is empty.

    The first line is the header; one that begins with # keeps its names without it. A table without rows gives no data frame.
    Raises UserError, in one line, for a missing column, for a row with more or fewer cells than the header, and for a damaged file.
    """
    with opened(path) as raw:
        header = raw.readline().decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r\n")
        names = [cell.strip().removeprefix("#").strip() for cell in header.split(separator)]
        missing = [name for name in needed if name not in names]
        if missing:
            raise UserError(
                f"{path} has no column {missing[0]!r}; it begins with {', '.join(names)[:120]}: its layout has changed, or it is another file"
            )
        try:
            batches = pacsv.open_csv(
                raw,
                read_options=pacsv.ReadOptions(column_names=names, block_size=batch_bytes, use_threads=False),
                parse_options=pacsv.ParseOptions(delimiter=separator, quote_char=False),
                convert_options=pacsv.ConvertOptions(
                    include_columns=list(needed),
                    column_types=dict.fromkeys(needed, pa.string()),
                    strings_can_be_null=False,
                ),
            )
            for batch in batches:
                yield batch.to_pandas()
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                return
            first = str(error).strip().splitlines()[0][:200]
            raise UserError(f"{path} is damaged or cut off: {first}; fetch it again") from None
