"""Markers of cell types: both versions, the computed rows, cancer cells, and genes that a spreadsheet spoilt."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.cellmarker import read

HEADER_3 = (
    "species tissue_class tissue_type uberon_id disease_category disease cell_name_class cell_name cellontology_id marker symbol gene_id "
    "gene_type gene_name uniprot_id technology_seq marker_source pmid title journal year series_id method_details"
)
HEADER_2 = (
    "species tissue_class tissue_type uberonongology_id cancer_type cell_type cell_name cellontology_id marker Symbol GeneID Genetype "
    "Genename UNIPROTID technology_seq marker_source PMID Title journal year"
)
NAMES_3, NAMES_2 = HEADER_3.split(), HEADER_2.split()
# species, disease, class, cell, ontology, marker, symbol, gene id, marker source
FACTS = [
    ("Human", "Normal", "Normal cell", "Macrophage", "CL_0000235", "CD16", "FCGR3A", "2215.0", "Experiment"),
    ("Human", "Normal", "Normal cell", "Macrophages", "CL_0000235", "CD68", "CD68", "968.0", "Company"),
    ("Human", "Normal", "Normal cell", "Macrophage", "CL_0000235", "CD14", "CD14", "929", "Review"),
    ("Human", "Lung Cancer", "Cancer cell", "Cancer stem cell", "", "CD44", "CD44", "960.0", "Experiment"),
    ("Human", "Lung Cancer", "Cancer cell", "Macrophage", "CL_0000235", "CD163", "CD163", "", "Experiment"),
    ("Human", "Lung Cancer", "Normal cell", "Odd cell", "NA", "X", "NA", "100.0", "Experiment"),
    ("Human", "Normal", "Normal cell", "Macrophage", "CL_0000235", "A", "7-Sep", "989.0", "Experiment"),
    ("Human", "Normal", "Normal cell", "Macrophage", "CL_0000235", "A", "2001-09-07 00:00:00", "", "Experiment"),
    ("Human", "Normal", "Normal cell", "Macrophage", "CL_0000235", "A", "", "", "Experiment"),
    ("Human", "Normal", "Normal cell", "Macrophage", "CL_0000235", "A", "[ITGAM, CD14]", "", "Experiment"),
    ("Human", "Normal", "Normal cell", "", "", "A", "CD14", "929", "Experiment"),
    ("Mouse", "Normal", "Normal cell", "Macrophage", "CL_0000235", "A", "Cd14", "12475", "Experiment"),
    ("Human", "Normal", "Normal cell", "Macrophage", "CL_0000235", "A", "LYZ", "4069.0", "Method"),
    ("Human", "Normal", "Normal cell", "Macrophage", "CL_0000235", "A", "LYZ", "4069.0", "Method"),
]
DROPPED = {
    "not human": 1, "computed on single-cell data": 2, "a date in place of a gene": 1, "no gene": 1, "several genes in one cell": 1,
    "no cell type": 1,
}  # fmt: skip


def frame(names: list[str]) -> pd.DataFrame:
    places = [0, 4, 5, 6, 7, 8, 9, 10, 15] if len(names) == 20 else [0, 5, 6, 7, 8, 9, 10, 11, 16]
    rows = []
    for fact in FACTS:
        row = ['a "title'] * 23
        for place, cell in zip(places, fact, strict=True):
            row[place] = cell
        rows.append(row[: len(names)])
    return pd.DataFrame(rows, columns=names)


def write_3(folder: Path, names: list[str] = NAMES_3, zipped: bool = True) -> None:
    text = frame(NAMES_3)[names].to_csv(sep="\t", index=False, quoting=csv.QUOTE_NONE)
    if zipped:
        with zipfile.ZipFile(folder / "human_cell_marker.zip", "w") as archive:
            archive.writestr("human_cell_marker.txt", text)
    else:
        (folder / "human_cell_marker.txt").write_text(text)


def check(folder: Path, version: str) -> None:
    found = read(folder)
    terms = found.terms
    assert terms is not None
    assert found.version == version
    assert found.dropped == DROPPED
    assert found.rows_read == len(FACTS) == len(terms) + sum(found.dropped.values())
    got = terms.set_index(["term_id", "gene_symbol"])
    assert set(got.index) == {
        ("CL:0000235", "FCGR3A"), ("CL:0000235", "CD68"), ("CL:0000235", "CD14"), ("CL:0000235", ""),
        ("Cancer stem cell (Lung Cancer)", "CD44"), ("Macrophage (Lung Cancer)", "CD163"), ("Odd cell", ""),
    }  # fmt: skip
    assert set(terms.loc[terms["term_id"] == "CL:0000235", "term_name"]) == {"Macrophage"}
    assert got["entrez_id"]["CL:0000235", "FCGR3A"] == "2215"
    assert got["entrez_id"]["CL:0000235", ""] == "989"  # SEPT7 by its id, as its symbol became a date
    assert got["category"]["Macrophage (Lung Cancer)", "CD163"] == "Cancer cell"
    assert got["category"]["Odd cell", ""] == "Normal cell"
    assert set(terms["evidence"]) == {"Experiment", "Company", "Review"}
    assert "LYZ" not in set(terms["gene_symbol"])


@pytest.mark.parametrize("columns", [23, 22])
@pytest.mark.parametrize("zipped", [True, False])
def test_version_3(tmp_path: Path, columns: int, zipped: bool) -> None:
    names = [name for name in NAMES_3 if columns == 23 or name != "disease_category"]
    assert len(names) == columns
    write_3(tmp_path, names, zipped)
    check(tmp_path, "3.0")


def test_version_2(tmp_path: Path) -> None:
    frame(NAMES_2).to_excel(tmp_path / "Cell_marker_Human.xlsx", index=False)
    check(tmp_path, "2.0")
    (tmp_path / "Cell_marker_Human.xlsx").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match="damaged or cut off"):
        read(tmp_path)


HEADER_1 = (
    "speciesType tissueType UberonOntologyID cancerType cellType cellName CellOntologyID cellMarker geneSymbol geneID proteinName "
    "proteinID markerResource PMID Company"
)


def test_version_1_has_several_genes_in_a_cell(tmp_path: Path) -> None:
    blood = ("Human", "Blood", "UBERON_0000178", "Normal", "Normal cell", "Monocyte", "CL_0000576")
    rows = [
        (
            *blood,
            "CD14, CD32, CD68",
            "CD14, [FCGR2A, FCGR2B], CD68",
            "929, [2212, 2213], 968",
            "a",
            "b",
            "Experiment",
            "1",
            "NA",
        ),
        (*blood, "CD15, CD16", "FUT4, FCGR3A", "2526", "a", "b", "Review", "2", "NA"),  # fewer ids than symbols
        (*blood, "X", "NA, LYZ", "NA, 4069", "a", "b", "Company", "3", "NA"),
        (*blood, "X", "CD1C, CD1E", "911, 913", "a", "b", "Single-cell sequencing", "4", "NA"),
        ("Mouse", *blood[1:], "X", "Cd14, Cd68", "12475, 12514", "a", "b", "Experiment", "5", "NA"),
    ]
    text = "\n".join("\t".join(row) for row in [HEADER_1.split(), *rows])
    (tmp_path / "Human_cell_markers.txt").write_text(text + "\n")
    found = read(tmp_path)
    assert found.version == "1"
    assert found.terms[["term_id", "gene_symbol", "entrez_id"]].to_numpy().tolist() == [
        ["CL:0000576", symbol, entrez]
        for symbol, entrez in [
            ("CD14", "929"), ("FCGR2A", "2212"), ("FCGR2B", "2213"), ("CD68", "968"), ("FUT4", ""), ("FCGR3A", ""), ("LYZ", "4069"),
        ]
    ]  # fmt: skip
    assert found.dropped == {"not human": 2, "computed on single-cell data": 2, "no gene": 1}
    assert (found.rows_read, found.split) == (5, 7)
    assert found.rows_read + found.split == len(found.terms) + sum(found.dropped.values())


@pytest.mark.parametrize(("name", "separator"), [("Cell_marker_Human.txt", "\t"), ("Cell_marker_All.csv", ",")])
def test_version_2_as_text(tmp_path: Path, name: str, separator: str) -> None:
    """Some mirrors give the spreadsheet as text; a cell without a gene is a marker that has none, such as PDGFR-alpha."""
    fat = ["Human", "Abdomen", "Abdominal fat pad", "", "Normal", "Normal cell", "Brown adipocyte", "CL_0000449"]
    rest = ["sci-RNA-seq", "Experiment", "1", 'of "fat", and more', "Cell", "2020"]
    rows = [
        [*fat, "UCP1", "UCP1", "7350", "protein_coding", "uncoupling protein 1", "P25874", *rest],
        [*fat, "PDGFR\N{GREEK SMALL LETTER ALPHA} ", "", "", "", "", "", *rest],
        ["Mouse", *fat[1:], "Ucp1", "Ucp1", "22227", "protein_coding", "uncoupling protein 1", "P12242", *rest],
    ]
    with (tmp_path / name).open("w", newline="") as file:
        writer = csv.writer(file, delimiter=separator) if separator == "," else None
        for row in [NAMES_2, *rows]:
            _ = writer.writerow(row) if writer else file.write(separator.join(row) + "\n")
    found = read(tmp_path)
    assert found.version == "2.0"
    assert found.terms[["term_id", "gene_symbol", "entrez_id"]].to_numpy().tolist() == [["CL:0000449", "UCP1", "7350"]]
    assert found.dropped == {"not human": 1, "no gene": 1}


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    write_3(tmp_path)
    path = tmp_path / "human_cell_marker.zip"
    whole = path.read_bytes()
    for raw, says in (
        (whole[:-40], "damaged or cut off"),
        (whole.replace(b"cell_name_class", b"cell_name_klass"), "damaged or cut off|no column"),
        (b" <html>", "web page"),
    ):
        path.write_bytes(raw)
        with pytest.raises(UserError, match=says) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)
    path.unlink()
    (tmp_path / "human_cell_marker.txt").write_text("\t".join(NAMES_3) + "\n")
    with pytest.raises(UserError, match="has no rows"):
        read(tmp_path)
    (tmp_path / "human_cell_marker.txt").write_text("\t".join(NAMES_2) + "\nHuman\n")
    with pytest.raises(UserError, match="damaged or cut off"):
        read(tmp_path)
    (tmp_path / "human_cell_marker.txt").write_text("\t".join(NAMES_3).replace("disease\t", "disorder\t") + "\nHuman\n")
    with pytest.raises(UserError, match="has no column 'disease'"):
        read(tmp_path)
