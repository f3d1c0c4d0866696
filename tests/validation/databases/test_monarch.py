"""Monarch: human genes only, negated statements, quoted cells, and the files that are there."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases import monarch
from tests.validation.databases.counts import check, dropped

_HEADER = (
    "subject subject_label subject_category subject_taxon subject_taxon_label negated predicate object object_label object_category "
    "qualifiers publications has_evidence primary_knowledge_source aggregator_knowledge_source"
)
HEADER = _HEADER.split()
CAUSAL, NONCAUSAL, PHENOTYPE = "gene_disease.9606.tsv.gz", "gene_disease.noncausal.tsv.gz", "gene_phenotype.9606.tsv.gz"
NO_HIERARCHY = [
    "mondo.obo is not there: terms of MONDO have no hierarchy",
    "hp.obo is not there: terms of HP have no hierarchy",
]


def written(folder: Path, name: str, rows: list[dict[str, str]], header: list[str] = HEADER) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, header, delimiter="\t", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    default = dict.fromkeys(HEADER, "") | {
        "subject": "HGNC:5", "subject_label": "A1BG", "predicate": "biolink:causes", "object": "MONDO:0000001",
        "object_label": "blue nails", "primary_knowledge_source": "infores:omim",
    }  # fmt: skip
    writer.writerows(default | row for row in rows)
    data = text.getvalue().encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def test_causal_correlated_and_phenotypes(tmp_path: Path) -> None:
    written(tmp_path, CAUSAL, [{}, {"primary_knowledge_source": "infores:clingen"}])
    noncausal = [
        {"predicate": "biolink:contributes_to"},
        {"subject": "MGI:1"}, {"subject": "NCBIGene:7"}, {"subject": ""}, {"object": ""},
    ]  # fmt: skip
    written(tmp_path, NONCAUSAL, noncausal)
    written(tmp_path, PHENOTYPE, [{"object": "HP:0000007", "object_label": 'a "quoted"\tname'}])
    statements = monarch.read(tmp_path)
    check(statements, rows_read=8)
    assert statements.dropped == {"no human gene": 3, "no disease or phenotype": 1}
    assert len(statements.terms) == 8 - dropped(statements)
    assert list(statements.terms[["term_id", "category", "evidence"]].itertuples(index=False, name=None)) == [
        ("MONDO:0000001", "causal", "causes infores:omim"), ("MONDO:0000001", "causal", "causes infores:clingen"),
        ("MONDO:0000001", "noncausal", "contributes_to infores:omim"), ("HP:0000007", "phenotype", "causes infores:omim"),
    ]  # fmt: skip
    assert statements.terms["term_name"].iloc[-1] == 'a "quoted"\tname'
    assert set(statements.terms["hgnc_id"]) == {"HGNC:5"}
    assert statements.notes == NO_HIERARCHY


@pytest.mark.parametrize(("negated", "negative"), [("true", True), ("True", True), ("false", False), ("", False)])
def test_an_empty_cell_is_not_negative(tmp_path: Path, negated: str, negative: bool) -> None:
    statements = monarch.read(written(tmp_path, CAUSAL, [{"negated": negated}]))
    assert statements.terms["negative"].tolist() == [negative]


def test_no_human_gene_at_all(tmp_path: Path) -> None:
    statements = monarch.read(written(tmp_path, NONCAUSAL, [{"subject": "MGI:1"}] * 3))
    assert statements.dropped == {"no human gene": 3}
    assert statements.terms.empty


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    statements = monarch.read(written(tmp_path, CAUSAL.removesuffix(".gz"), [{}]))
    check(statements, rows_read=1)
    assert sorted(statements.notes) == sorted([
        *NO_HIERARCHY,
        f"{NONCAUSAL} is not there: no statements of category noncausal",
        f"{PHENOTYPE} is not there: no statements of category phenotype",
    ])  # fmt: skip


def test_a_file_without_the_columns_of_evidence(tmp_path: Path) -> None:
    short = [name for name in HEADER if name not in ("negated", "primary_knowledge_source")]
    terms = monarch.read(written(tmp_path, CAUSAL, [{}], short)).terms
    assert terms[["evidence", "negative", "category"]].to_numpy().tolist() == [["causes", False, "causal"]]


def test_the_layout_of_2019_to_2023(tmp_path: Path) -> None:
    old = [
        "subject",
        "subject_label",
        "subject_taxon",
        "subject_taxon_label",
        "object",
        "object_label",
        "relation",
        "relation_label",
        "evidence",
        "evidence_label",
        "source",
        "is_defined_by",
        "qualifier",
    ]
    rows = [
        {"relation_label": "causes condition", "source": "PMID:1"},
        {"subject": "HGNC:7", "relation_label": "contributes to condition", "source": "PMID:2"},
        {"subject": "MGI:7", "relation_label": "causes condition"},
    ]
    statements = monarch.read(written(tmp_path, CAUSAL.removesuffix(".gz"), rows, old))
    assert statements.terms[["hgnc_id", "term_id", "category", "evidence"]].to_numpy().tolist() == [
        ["HGNC:5", "MONDO:0000001", "causal", "causes condition PMID:1"],
        ["HGNC:7", "MONDO:0000001", "noncausal", "contributes to condition PMID:2"],
    ]
    assert statements.dropped == {"no human gene": 1}
    assert any("layout of 2019 to 2023" in note for note in statements.notes)


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of gene_disease"):
        monarch.read(tmp_path)
    with pytest.raises(UserError, match="no rows"):
        monarch.read(written(tmp_path, CAUSAL, []))
    for lost in ("object", "predicate"):
        with pytest.raises(UserError, match=f"no column '{lost}'"):
            monarch.read(
                written(
                    tmp_path, CAUSAL, [{}], [name for name in HEADER if name not in (lost, "primary_knowledge_source")]
                )
            )
    path = written(tmp_path, CAUSAL, [{"publications": f"PMID:{i * 7919}"} for i in range(500)]) / CAUSAL
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged or cut off"):
        monarch.read(tmp_path)
