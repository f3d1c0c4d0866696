"""Tab-separated files without a header line, every cell as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.text_tables import opened

_BLOCK = 1 << 24


def read_rows(
    path: Path, names: Sequence[str], needed: Sequence[str], comment: str = ""
) -> tuple[pd.DataFrame, list[str]]:
    """Columns of a table by their order in the file, and its comment lines.

    names: all columns of the file, in order. needed: those to read. comment: lines that begin with it are no rows.
    Raises UserError, in one line, for a row with more or fewer cells, text that is not UTF-8, and a file without rows.
    """
    comments: list[str] = []
    wrong: list[pacsv.InvalidRow] = []

    def not_a_row(row: pacsv.InvalidRow) -> str:
        if comment and row.text.startswith(comment):
            comments.append(row.text.rstrip())
            return "skip"
        wrong.append(row)
        return "error"

    with opened(path) as raw:
        try:
            table = pacsv.read_csv(
                raw,
                read_options=pacsv.ReadOptions(column_names=list(names), use_threads=False, block_size=_BLOCK),
                parse_options=pacsv.ParseOptions(
                    delimiter="\t", quote_char=False, double_quote=False, invalid_row_handler=not_a_row
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=list(needed)
                ),
            )  # fmt: skip
        except pa.ArrowInvalid as error:
            if wrong:
                row = wrong[0]
                raise UserError(
                    f"{path}: a row has {row.actual_columns} cells and not {row.expected_columns}: {row.text[:60]!r}; the file is "
                    f"cut off, or its layout has changed"
                ) from None
            first = str(error).splitlines()[0]
            raise UserError(f"{path} is damaged, or not UTF-8 text: {first}; fetch it again") from None
    if not table.num_rows:
        raise UserError(f"{path} has no rows; fetch it again")
    return table.to_pandas().astype(object), comments
