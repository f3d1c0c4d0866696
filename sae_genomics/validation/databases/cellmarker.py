"""CellMarker: marker genes of cell types, of human cells. Version 3.0 is text in a zip file, version 2.0 a spreadsheet, 1 text.

Most rows of 3.0 were computed from single-cell data (`marker_source` is Method, in older versions Single-cell sequencing). They are left
out: they would be found again in such data.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.batches import no_rows, read_batches
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find, opened, read_text_table

NEW, SPREADSHEET = "human_cell_marker", "Cell_marker_Human.xlsx"
_TEXT_2 = tuple(f"Cell_marker_{part}.{end}" for part in ("Human", "All") for end in ("txt", "tsv", "csv"))
FILES = (
    f"{NEW}.zip", f"{NEW}.txt", SPREADSHEET, "Cell_marker_All.xlsx", *_TEXT_2, "Human_cell_markers.txt", "human_cell_markers.txt",
    "all_cell_markers.txt",
)  # fmt: skip

# our name -> the column of 3.0; 2.0 in capitals and with other words
_COLUMNS = {
    "species": "species", "disease": "disease", "class": "cell_name_class", "cell": "cell_name", "ontology": "cellontology_id",
    "symbol": "symbol", "entrez": "gene_id", "marker_source": "marker_source",
}  # fmt: skip
_COLUMNS_2 = _COLUMNS | {"disease": "cancer_type", "class": "cell_type", "symbol": "Symbol", "entrez": "GeneID"}
_COLUMNS_1 = {
    "species": "speciesType", "disease": "cancerType", "class": "cellType", "cell": "cellName", "ontology": "CellOntologyID",
    "symbol": "geneSymbol", "entrez": "geneID", "marker_source": "markerResource",
}  # fmt: skip
_LAYOUTS = {"3.0": _COLUMNS, "2.0": _COLUMNS_2, "1": _COLUMNS_1}
_COMPUTED, _CANCER = ("Method", "Single-cell sequencing"), "Cancer cell"
_EMPTY = ("", "NA", "nan", "None")
# What a spreadsheet makes of SEPT7, MARCH1 or DEC1.
_DATE = re.compile(r"^(?:\d{1,2}-[A-Z][a-z]{2}|[A-Z][a-z]{2}-\d{1,2}|\d{4}-\d{2}-\d{2}(?: .*)?)$")


def read(folder: Path) -> Statements:
    """One row per marker of a cell type and paper. evidence: marker_source. category: the class, `Cancer cell` among them.

    A term is the cell type's id of the Cell Ontology, or its name where it has none. A cancer cell is a term of its own, named with its
    cancer: it is not a healthy cell of that type.
    """
    path = find(folder, FILES, "cellmarker")
    found = Statements()
    kept = [_kept(rows, found) for rows in _rows(path, found)]
    if not found.rows_read:
        raise no_rows(path, "cellmarker")
    found.terms = _terms(pd.concat(kept, ignore_index=True), found)
    return found


def _rows(path: Path, found: Statements) -> Iterator[pd.DataFrame]:
    if path.suffix == ".xlsx":
        found.version = "2.0"
        yield _spreadsheet(path)
        return
    separator = "," if path.suffix == ".csv" else "\t"
    with opened(path) as raw:
        line = raw.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
    header = next(csv.reader([line], delimiter=separator), [])
    found.version = next((version for version, names in _LAYOUTS.items() if names["symbol"] in header), "3.0")
    columns = _LAYOUTS[found.version]
    names = {there: ours for ours, there in columns.items()}
    if found.version == "3.0":
        for batch in read_batches(path, tuple(columns.values())):
            yield batch.to_pandas().rename(columns=names)
        return
    quoted = separator == "," or line.startswith('"')
    rows = read_text_table(path, tuple(columns.values()), separator=separator, quoted=quoted).rename(columns=names)
    yield _one_gene_each(rows, found) if found.version == "1" else rows


def _one_gene_each(rows: pd.DataFrame, found: Statements) -> pd.DataFrame:
    """Rows of CellMarker 1, where a cell holds the markers of a cell type in one paper, `CD14, [FCGR2A, FCGR2B], CD68`.

    Brackets hold the genes of one marker. Symbols and ids go together where a row has as many of one as of the other.
    """
    parts = {
        name: rows[name].str.replace(r"[\[\]]", "", regex=True).str.split(r"\s*,\s*", regex=True)
        for name in ("symbol", "entrez")
    }
    fitting = parts["symbol"].str.len() == parts["entrez"].str.len()
    ids = parts["entrez"].where(fitting, parts["symbol"].map(lambda genes: [""] * len(genes)))
    one = rows.assign(symbol=parts["symbol"], entrez=ids).explode(["symbol", "entrez"], ignore_index=True)
    found.split += len(one) - len(rows)
    found.rows_read -= len(one) - len(rows)  # the rows of the file are counted, and not those of their genes
    return one


def _spreadsheet(path: Path) -> pd.DataFrame:
    try:
        sheet = pd.read_excel(path, dtype=str, keep_default_na=False, na_filter=False, engine="openpyxl")
    except Exception as error:  # of a damaged spreadsheet there are many kinds
        raise UserError(f"{path} is damaged or cut off ({error}); fetch it again") from None
    missing = [name for name in _COLUMNS_2.values() if name not in sheet]
    if missing:
        raise UserError(
            f"{path} has no column {missing[0]!r}; it begins with {', '.join(map(str, sheet.columns))[:120]}: its layout has changed"
        )
    return sheet[list(_COLUMNS_2.values())].set_axis(list(_COLUMNS_2), axis=1)


def _kept(rows: pd.DataFrame, found: Statements) -> pd.DataFrame:
    """Those of human cells that were not computed; the others are counted."""
    found.rows_read += len(rows)
    for reason, out in (
        ("not human", lambda each: each["species"].str.strip() != "Human"),
        ("computed on single-cell data", lambda each: each["marker_source"].str.strip().isin(_COMPUTED)),
    ):
        leave = out(rows).to_numpy(bool)
        found.drop(reason, int(leave.sum()))
        rows = rows[~leave]
    return rows


def _terms(rows: pd.DataFrame, found: Statements) -> pd.DataFrame:
    rows = rows.apply(lambda column: column.str.strip().where(~column.isin(_EMPTY), ""))
    entrez = rows["entrez"].str.replace(r"\.0$", "", regex=True)
    entrez = entrez.where(entrez.str.fullmatch(r"\d+"), "")
    dates = rows["symbol"].str.match(_DATE)
    symbol = rows["symbol"].mask(dates, "")
    leave = {
        "a date in place of a gene": dates & (entrez == ""),
        "no gene": ~dates & (symbol == "") & (entrez == ""),
        "several genes in one cell": symbol.str.contains(r"[,;\[\]]", regex=True),
        "no cell type": rows["cell"] == "",
    }
    gone = pd.Series(False, index=rows.index)
    for reason, out in leave.items():
        found.drop(reason, int((out & ~gone).sum()))
        gone |= out
    rows, symbol, entrez = rows[~gone], symbol[~gone], entrez[~gone]
    cancer = rows["class"] == _CANCER
    ontology = rows["ontology"].str.replace("_", ":", n=1, regex=False)
    ontology = ontology.where(ontology.str.fullmatch(r"CL:\d+"), "")
    in_cancer = rows["cell"] + " (" + rows["disease"].where(rows["disease"] != "", "cancer") + ")"
    term_id = ontology.where(ontology != "", rows["cell"]).mask(cancer, in_cancer)
    return pd.DataFrame(
        {
            "term_id": term_id, "term_name": _one_name(term_id, rows["cell"].mask(cancer, in_cancer)), "gene_symbol": symbol,
            "entrez_id": entrez, "score": float("nan"), "evidence": rows["marker_source"], "category": rows["class"], "negative": False,
        }
    ).reset_index(drop=True)  # fmt: skip


def _one_name(term_id: pd.Series, name: pd.Series) -> pd.Series:
    """Papers name one cell type in several ways: the most frequent name of each, the first by the alphabet among equals."""
    counts = pd.DataFrame({"id": term_id, "name": name}).value_counts().reset_index(name="n")
    chosen = counts.sort_values(["n", "name"], ascending=[False, True]).drop_duplicates("id").set_index("id")["name"]
    return term_id.map(chosen)
