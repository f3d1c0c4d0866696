"""DisGeNET: pages of the REST interface with their totals and warnings, and the two old tables."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases import disgenet
from tests.validation.databases.counts import check, dropped

_NEW = "geneId geneSymbol DSI DPI diseaseId diseaseName diseaseType diseaseClass diseaseSemanticType score EI YearInitial YearFinal NofPmids NofSnps source"
_OLD = "geneId geneSymbol diseaseId diseaseName score NofPmids NofSnps source"
NEW, OLD = _NEW.split(), _OLD.split()


def association(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "assocID": number, "symbolOfGene": f"GENE{number}", "geneNcbiID": number, "geneEnsemblIDs": ["ENSG01", "ENSG02"],
        "diseaseVocabularies": ["MONDO_0000001"], "diseaseName": "blue nails", "diseaseType": "disease", "diseaseUMLSCUI": "C0000001",
        "score": 0.5, "el": None, "ei": 1.0,
    } | fields  # fmt: skip


def page(request: str, number: int, total: int, payload: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {
        "status": "OK", "paging": {"pageSize": 100, "totalElements": total, "currentPageNumber": number}, "warnings": [],
        "requestpar": {"gene_ncbi_id": request, "page_number": number}, "payload": payload, "httpStatus": 200,
    } | fields  # fmt: skip


def written(folder: Path, pages: list[dict[str, Any]]) -> Path:
    (folder / "gda_pages.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in pages))
    return folder


def test_pages_of_several_requests(tmp_path: Path) -> None:
    warning = "Your profile is restricted to curated sources"
    pages = [
        page("1,2", 0, 3, [association(1), association(2, el="strong")], warnings=[warning]),
        page("1,2", 1, 3, [association(3, geneNcbiID=None)], warnings=[warning]),
        page("9", 0, 2, [association(1), association(9, diseaseUMLSCUI=None, diseaseType="group")]),
        page("10", 0, 0, []),
    ]
    statements = disgenet.read(written(tmp_path, pages))
    check(statements, rows_read=5)
    assert statements.dropped == {"duplicate": 1, "no gene": 1, "no disease": 1}
    assert len(statements.terms) == 5 - dropped(statements)
    assert statements.terms["entrez_id"].tolist() == ["1", "2"]
    assert statements.terms["evidence"].tolist() == ["", "strong"]
    assert set(statements.terms["term_id"]) == {"UMLS:C0000001"}
    assert statements.terms["score"].tolist() == [0.5, 0.5]
    assert statements.notes == [f"DisGeNET warned: {warning}"]


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([page("1", 0, 2, [association(1)])], "holds 1 of 2 associations"),
        ([page("1", 0, 2, [association(1)]), *[page("1", 1, 2, [association(2), association(3)])]], "holds 3 of 2 associations"),
        ([page("1", 0, 2, [association(1)]), page("2", 0, 1, [association(2)])], "holds 1 of 2 associations"),
        ([page("1", 0, 1, [association(1)]), page("2", 0, 3, [association(2)])], "holds 1 of 3 associations"),
        ([page("1", 0, 1, [association(1)], paging=None)], "no paging.totalElements"),
        ([{"status": "UNAUTHORIZED", "httpStatus": 401}], r"line 1 holds no associations \(UNAUTHORIZED\)"),
        ([page("1", 0, 1, [{"gene": 1}])], "no field 'geneNcbiID'"),
        ([page("1", 0, 0, [])], "no field 'geneNcbiID'"),
    ],
)  # fmt: skip
def test_pages_that_are_not_whole(tmp_path: Path, pages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        disgenet.read(written(tmp_path, pages))


def test_half_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, [page("1", 0, 1, [association(1)])]) / "gda_pages.jsonl"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match="line 1 is not JSON"):
        disgenet.read(tmp_path)


@pytest.mark.parametrize("header", [NEW, OLD], ids=["16 columns", "8 columns"])
@pytest.mark.parametrize("ending", [".gz", ""])
def test_old_tables(tmp_path: Path, header: list[str], ending: str) -> None:
    default = dict.fromkeys(NEW, "") | {
        "geneId": "7", "geneSymbol": "AAA", "diseaseId": "C0000001", "diseaseName": 'blue "nails', "diseaseType": "phenotype",
        "score": "0.3", "source": "CTD_human;ORPHANET",
    }  # fmt: skip
    rows = [{}, {"diseaseId": "umls:C0000002"}, {"geneId": ""}, {"diseaseId": ""}]
    text = "".join(
        "\t".join(cells) + "\n" for cells in [header, *([(default | row)[name] for name in header] for row in rows)]
    )
    name = f"curated_gene_disease_associations.tsv{ending}"
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if ending else text.encode())
    statements = disgenet.read(tmp_path)
    check(statements, rows_read=4)
    assert statements.dropped == {"no gene": 1, "no disease": 1}
    assert statements.terms["term_id"].tolist() == ["UMLS:C0000001", "UMLS:C0000002"]
    assert set(statements.terms["category"]) == {"phenotype" if header is NEW else ""}
    assert set(statements.terms["evidence"]) == {"CTD_human;ORPHANET"}
    assert set(statements.terms["score"]) == {0.3}


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of gda_pages"):
        disgenet.read(tmp_path)
    path = tmp_path / "curated_gene_disease_associations.tsv.gz"
    path.write_text("<!DOCTYPE html><html>moved</html>")  # what the old address answers
    with pytest.raises(UserError, match="web page"):
        disgenet.read(tmp_path)
    path.write_text("\t".join(NEW) + "\n")
    with pytest.raises(UserError, match="no rows"):
        disgenet.read(tmp_path)
    (tmp_path / "gda_pages.jsonl").write_text("\n\n[]\n")
    with pytest.raises(UserError, match="line 3 holds no associations"):
        disgenet.read(tmp_path)


@pytest.mark.parametrize("indent", [None, 1])
def test_answers_that_were_saved_by_hand(tmp_path: Path, indent: int | None) -> None:
    """One answer over many lines, or a list of them, under a name of its own."""
    pages = [page("1", 0, 1, [association(1)]), page("2", 0, 1, [association(2)])]
    (tmp_path / "gda_summary.json").write_text(json.dumps(pages if indent is None else pages[0], indent=indent))
    terms = disgenet.read(tmp_path).terms
    assert terms["entrez_id"].tolist() == (["1", "2"] if indent is None else ["1"])


def test_an_old_table_in_latin_1_with_comments(tmp_path: Path) -> None:
    cells = [
        "1",
        "A1BG",
        "C0000001",
        "Sj\N{LATIN SMALL LETTER O WITH DIAERESIS}gren's Syndrome",
        "0.3",
        "1",
        "0",
        "CTD_human;ORPHANET",
    ]
    text = "# DisGeNET\n" + "\t".join(OLD) + "\n" + "\t".join(cells) + "\n"
    (tmp_path / "curated_gene_disease_associations.tsv").write_bytes(text.encode("latin-1"))
    terms = disgenet.read(tmp_path).terms
    assert terms[["term_name", "evidence"]].to_numpy().tolist() == [[cells[3], cells[7]]]
