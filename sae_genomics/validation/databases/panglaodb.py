"""PanglaoDB: marker genes of cell types, canonical ones of human cells."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.batches import read_all
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find

FILES = ("PanglaoDB_markers_27_Mar_2020.tsv.gz", "PanglaoDB_markers_27_Mar_2020.tsv")
_COLUMNS = ("species", "official gene symbol", "cell type", "canonical marker", "organ", "sensitivity_human")
_OPEN_FRAME = re.compile(
    r"^(C[0-9XY]+)ORF([0-9]+[A-Z]?)$"
)  # C15ORF48: the symbols are in capitals, and HGNC writes C15orf48


def read(folder: Path) -> Statements:
    """One row per canonical marker of a cell type. score: its sensitivity in human cells. category: the organ."""
    path = find(folder, FILES, "panglaodb")
    rows = read_all(path, _COLUMNS, "panglaodb").to_pandas()
    found = Statements(rows_read=len(rows), version=_version(path))
    strange = rows.loc[~rows["canonical marker"].isin(["0", "1", "NA", ""]), "canonical marker"]
    if len(strange):
        raise UserError(
            f"{path}: 'canonical marker' is {strange.iloc[0]!r} and should be 1 or NA: its layout has changed"
        )
    human = rows["species"].str.split().map(lambda names: "Hs" in names).astype(bool)
    found.drop("not human", int((~human).sum()))
    rows = rows[human]
    canonical = rows["canonical marker"] == "1"
    found.drop("not a canonical marker", int((~canonical).sum()))
    rows = rows[canonical]
    symbol, cell = rows["official gene symbol"].str.strip(), rows["cell type"].str.strip()
    nameless = (symbol == "") | (cell == "")
    found.drop("no gene or no cell type", int(nameless.sum()))
    rows, symbol, cell = rows[~nameless], symbol[~nameless], cell[~nameless]
    terms = pd.DataFrame(
        {
            "term_id": cell, "term_name": cell, "gene_symbol": symbol.str.replace(_OPEN_FRAME, r"\1orf\2", regex=True),
            "score": _numbers(rows["sensitivity_human"], path),
            "evidence": "canonical marker", "category": rows["organ"].str.strip().replace("NA", ""), "negative": False,
        }
    )  # fmt: skip
    repeated = terms.duplicated(["term_id", "gene_symbol", "category"])
    found.drop("duplicate", int(repeated.sum()))
    found.terms = terms[~repeated].reset_index(drop=True)
    return found


def _numbers(text: pd.Series, path: Path) -> pd.Series:
    try:
        return pd.to_numeric(text.where(~text.isin(["NA", ""])), errors="raise").astype("float64")
    except ValueError as error:
        raise UserError(f"{path}: sensitivity_human is not a number ({error}): its layout has changed") from None


def _version(path: Path) -> str:
    dated = re.search(r"\d+_[A-Z][a-z]+_\d{4}", path.name)
    return dated.group().replace("_", " ") if dated else ""
