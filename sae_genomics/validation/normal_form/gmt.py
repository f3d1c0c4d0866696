"""Gene sets in GMT files as rows: one row for each gene of each set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.text_tables import opened

_SHAPE = "a GMT line is name TAB description TAB gene TAB gene ..."


def read_gmt_rows(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """name, description, gene, in the file's order, and what a person should know; the file may be in a zip or gzip file.

    Empty lines, lines that begin with #, empty cells at the end of a line and weights (`GENE,1.0`) are passed over. A name may
    stand on two lines: names are not unique in every database. Raises UserError naming file and line for anything else.
    """
    with opened(path) as raw:
        content = raw.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}); fetch it again") from None
    lines = pd.Series(text.split("\n"), dtype=object).str.rstrip("\r\t ")
    lines = lines[(lines != "") & ~lines.str.startswith("#")]
    if lines.empty:
        raise UserError(f"{path} holds no gene sets; {_SHAPE}")
    cells = lines.str.split("\t", n=2, expand=True).reindex(columns=range(3))
    bad = cells[2].isna() | (cells[0].str.strip() == "")
    if bad.any():
        number = int(bad.idxmax()) + 1
        raise UserError(f"{path}, line {number}: not a gene set, or cut off; {_SHAPE}")
    rows = cells.assign(gene=cells[2].str.split("\t")).explode("gene", ignore_index=True)
    rows["gene"] = rows["gene"].str.strip().str.replace(r",[-+0-9.eE]+$", "", regex=True)
    rows = rows[rows["gene"] != ""]
    table = pd.DataFrame({"name": rows[0].str.strip(), "description": rows[1].str.strip(), "gene": rows["gene"]})
    notes = [] if text.endswith("\n") else [f"{path.name} ends within a line: it may be cut off"]
    return table.reset_index(drop=True), notes
