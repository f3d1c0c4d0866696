"""GenCC: both layouts, both separators, quoted cells with line ends, the nine classes, and versions of a submission."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases import gencc
from tests.validation.databases.counts import check, dropped
from tests.validation.excerpts import excerpt

_SHARED = (
    "gene_curie gene_symbol disease_curie disease_title disease_original_curie disease_original_title classification_curie "
    "classification_title moi_curie moi_title submitter_curie submitter_title submitted_as_hgnc_id submitted_as_hgnc_symbol "
    "submitted_as_disease_id submitted_as_disease_name submitted_as_moi_id submitted_as_moi_name submitted_as_submitter_id "
    "submitted_as_submitter_name submitted_as_classification_id submitted_as_classification_name submitted_as_date "
    "submitted_as_public_report_url submitted_as_notes submitted_as_pmids submitted_as_assertion_criteria_url "
    "submitted_as_submission_id submitted_run_date"
)
SHARED = _SHARED.split()
LEGACY, NEW = ["uuid", *SHARED], ["sgc_id", "version_number", *SHARED]


def written(folder: Path, rows: list[dict[str, str]], name: str = "gencc-submissions.tsv", header=NEW) -> Path:
    text = io.StringIO()
    separator = "," if name.endswith("csv") else "\t"
    writer = csv.DictWriter(text, header, delimiter=separator, quoting=csv.QUOTE_ALL, extrasaction="ignore")
    writer.writeheader()
    default = dict.fromkeys([*LEGACY, *NEW], "") | {
        "version_number": "1", "gene_curie": "HGNC:5", "gene_symbol": "A1BG", "disease_curie": "MONDO:0000001",
        "disease_title": "nail disease, blue", "classification_curie": "GENCC:100001", "classification_title": "Definitve",
        "submitter_title": "A, Laboratory", "submitted_as_notes": 'two lines,\nthe second\twith a tab and "quotes"',
        "submitted_as_pmids": "PMID:\u00a01", "submitted_run_date": "2031-02-03",
    }  # fmt: skip
    for i, row in enumerate(rows):
        writer.writerow(default | {"uuid": f"GENCC_{i}", "sgc_id": f"SGC-{i}"} | row)
    (folder / name).write_bytes(text.getvalue().encode())
    return folder


@pytest.mark.parametrize("header", [LEGACY, NEW], ids=["legacy", "new"])
@pytest.mark.parametrize("name", ["gencc-submissions.tsv", "gencc-submissions.csv", "submissions-export-tsv"])
def test_the_nine_classes(tmp_path: Path, header: list[str], name: str) -> None:
    rows = [{"classification_curie": f"GENCC:10000{i}", "gene_curie": f"HGNC:{i}"} for i in range(1, 10)]
    statements = gencc.read(written(tmp_path, rows, name, header))
    check(statements, rows_read=9)
    assert not statements.dropped
    terms = statements.terms.set_index("hgnc_id")
    assert terms["category"].tolist() == [
        "Definitive", "Strong", "Moderate", "Limited", "Disputed Evidence", "Refuted Evidence", "Animal Model Only",
        "No Known Disease Relationship", "Supportive",
    ]  # fmt: skip
    assert terms.index[terms["negative"]].tolist() == ["HGNC:5", "HGNC:6", "HGNC:8"]
    assert set(terms["evidence"]) == {"A, Laboratory"}
    assert set(terms["term_name"]) == {"nail disease, blue"}
    assert statements.notes == [
        "mondo.obo is not there: terms of MONDO have no hierarchy", "the newest submission ran on 2031-02-03",
    ]  # fmt: skip


def test_the_highest_version_of_a_submission(tmp_path: Path) -> None:
    rows = [
        {"sgc_id": "SGC-A", "version_number": "9", "classification_curie": "GENCC:100004"},
        {"sgc_id": "SGC-A", "version_number": "10", "classification_curie": "GENCC:100006"},
        {"sgc_id": "SGC-A", "version_number": "2"},
        {"sgc_id": "SGC-B", "version_number": "1"},
    ]
    statements = gencc.read(written(tmp_path, rows))
    check(statements, rows_read=4)
    assert statements.dropped == {"an older version of a submission": 2}
    assert statements.terms["category"].tolist() == ["Refuted Evidence", "Definitive"]
    assert len(statements.terms) == 4 - dropped(statements)


def test_rows_that_say_nothing(tmp_path: Path) -> None:
    rows = [{"classification_curie": "GENCC:100099"}, {"gene_curie": ""}, {"disease_curie": ""}, {}]
    statements = gencc.read(written(tmp_path, rows))
    check(statements, rows_read=4)
    assert statements.dropped == {"class that is not one of the nine": 1, "no gene": 1, "no disease": 1}


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of gencc-submissions"):
        gencc.read(tmp_path)
    with pytest.raises(UserError, match="no rows"):
        gencc.read(written(tmp_path, []))
    with pytest.raises(UserError, match="neither a column 'sgc_id' nor 'uuid'"):
        gencc.read(written(tmp_path, [{}], header=SHARED))
    with pytest.raises(UserError, match="no column 'classification_curie'"):
        gencc.read(written(tmp_path, [{}], header=[name for name in NEW if name != "classification_curie"]))
    with pytest.raises(UserError, match="version_number 'new' is no number"):
        gencc.read(written(tmp_path, [{"version_number": "new"}]))
    path = written(tmp_path, [{}] * 20) / "gencc-submissions.tsv"
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(UserError, match="damaged or cut off"):
        gencc.read(tmp_path)
    path.write_text("<html><body>Too many downloads</body></html>")
    with pytest.raises(UserError, match="web page"):
        gencc.read(tmp_path)


def test_excerpt() -> None:
    """Counts from reading it with the csv module."""
    folder = excerpt("gencc")
    with (folder / "gencc-submissions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    statements = gencc.read(folder)
    check(statements, rows_read=len(rows))
    assert Counter(statements.terms["category"]) == Counter(row["classification_title"] for row in rows)
    assert set(zip(statements.terms["hgnc_id"], statements.terms["term_id"], strict=True)) == {
        (row["gene_curie"], row["disease_curie"]) for row in rows
    }
    assert not statements.terms["negative"].any()
