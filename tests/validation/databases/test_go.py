"""GO: GAF 2.1 and 2.2, NOT by its first part, and annotations that say nothing of a gene."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.go import COLUMNS, read
from tests.validation.databases.true_files import adds_up, write_rows
from tests.validation.excerpts import excerpt

OBO = """format-version: 1.2
data-version: releases/2026-08-05
ontology: go

[Term]
id: GO:0005575
name: cellular_component

[Term]
id: GO:0005634
name: nucleus
alt_id: GO:0000634
is_a: GO:0005575 ! cellular_component

[Term]
id: GO:0005730
name: nucleolus
is_a: GO:0005575 ! cellular_component
relationship: part_of GO:0005634 ! nucleus

[Term]
id: GO:0065007
name: biological regulation
subset: gocheck_do_not_annotate

[Term]
id: GO:0005515
name: protein binding

[Term]
id: GO:0006355
name: regulation of transcription
relationship: regulates GO:0005730 ! nucleolus
is_a: GO:0065007 ! biological regulation

[Term]
id: GO:0000011
name: obsolete thing
is_obsolete: true
"""
COMMENTS = "!gaf-version: {version}\n!generated-by: GOC\n!date-generated: 2026-08-05T00:00\n!\n"


def row(
    accession: str, symbol: str, qualifier: str, term: str, evidence: str = "IDA", taxon: str = "taxon:9606", kind: str = "protein",
    database: str = "UniProtKB",
) -> tuple[str, ...]:  # fmt: skip
    return (
        database, accession, symbol, qualifier, term, "PMID:1", evidence, "", "C", 'a "name', "S|T", kind, taxon, "20260805", "UniProt", "", "",
    )  # fmt: skip


ROWS = [
    row("P1", "TP53", "located_in", "GO:0005634"),
    row("P1", "TP53", "NOT|located_in", "GO:0005730"),
    row("P2", "MYC", "located_in", "GO:0005634", evidence="IEA"),
    row("P2", "MYC", "located_in", "GO:0000634"),
    row("P2", "MYC", "enables", "GO:0005515", evidence="IPI"),
    row("P2", "MYC", "is_active_in", "GO:0005575", evidence="ND"),
    row("P3", "NAN", "involved_in", "GO:0065007"),
    row("P3", "NAN", "involved_in", "GO:0006355", taxon="taxon:9606|taxon:1280"),
    row("P4", "ABC", "located_in", "GO:0005634", taxon="taxon:10090"),
    row("CPX-1", "cohesin", "located_in", "GO:0005634", kind="protein-containing complex", database="ComplexPortal"),
    row("P5", "XYZ", "located_in", "GO:0000011"),
    row("P5", "XYZ", "located_in", "GO:7777777"),
    row("URS1_9606", "hsa-mir", "part_of", "GO:0005730", database="RNAcentral", kind="miRNA"),
]
DROPPED = {
    "another species": 1, "complex and no gene": 1, "no data (ND)": 1, "obsolete term": 1,
}  # fmt: skip


def write(folder: Path, rows: list, version: str = "2.2", name: str = "HUMAN-uniprot.gaf.gz") -> None:
    (folder / "go-basic.obo").write_text(OBO)
    plain = write_rows(folder / "plain", rows, COMMENTS.format(version=version) if version else "")
    content = plain.read_bytes()
    plain.unlink()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


@pytest.mark.parametrize("name", ["HUMAN-uniprot.gaf.gz", "HUMAN-uniprot.gaf", "goa_human.gaf.gz", "goa_human.gaf"])
def test_every_row_is_a_statement_or_counted_under_both_names(tmp_path, name):
    write(tmp_path, ROWS, name=name)
    statements = read(tmp_path)
    assert statements.rows_read == len(ROWS)
    assert adds_up(statements)
    assert statements.dropped == DROPPED
    assert statements.version == "2026-08-05"
    assert not statements.propagated


def test_a_qualifier_that_begins_with_not_is_negative(tmp_path):
    write(tmp_path, [*ROWS, row("P6", "NOTUM", "involved_in|NOTHING", "GO:0005634")])
    terms = read(tmp_path).terms
    negative = terms[terms["negative"]]
    assert negative[["uniprot_id", "term_id"]].to_numpy().tolist() == [["P1", "GO:0005730"]]


def test_gaf_2_1_has_empty_qualifiers(tmp_path):
    rows = [row("P1", "TP53", "", "GO:0005634"), row("P1", "TP53", "NOT", "GO:0005730"),
            row("P2", "MYC", "NOT|colocalizes_with", "GO:0005730"), row("P2", "MYC", "contributes_to", "GO:0005634")]  # fmt: skip
    write(tmp_path, rows, version="2.1", name="goa_human.gaf.gz")
    assert list(read(tmp_path).terms["negative"]) == [False, True, True, False]


def test_electronic_annotations_are_a_category(tmp_path):
    write(tmp_path, ROWS)
    terms = read(tmp_path).terms
    assert terms["category"].value_counts().to_dict() == {"manual": 8, "IEA": 1}
    assert set(terms.loc[terms["category"] == "IEA", "evidence"]) == {"IEA"}


def test_annotations_inferred_from_expression_are_a_category(tmp_path):
    write(
        tmp_path,
        [
            *ROWS,
            row("P7", "HHH", "involved_in", "GO:0006355", evidence="HEP"),
            row("P8", "EEE", "involved_in", "GO:0006355", evidence="IEP"),
        ],
    )
    terms = read(tmp_path).terms
    assert list(terms.loc[terms["category"] == "expression", "gene_symbol"]) == ["HHH", "EEE"]


def test_terms_that_say_little_are_kept_and_marked(tmp_path):
    write(tmp_path, ROWS)
    statements = read(tmp_path)
    assert {"GO:0005515", "GO:0065007"} <= set(statements.terms["term_id"])
    assert statements.says_little["GO:0005515"] == "protein binding"
    assert statements.says_little["GO:0065007"] == "not for annotation"
    assert statements.says_little["GO:0005575"] == statements.says_little["GO:0008150"] == "too general"
    assert "GO:0005634" not in statements.says_little


def test_old_ids_are_replaced_and_newer_terms_are_told(tmp_path):
    write(tmp_path, ROWS)
    statements = read(tmp_path)
    terms = statements.terms
    assert (terms["term_id"] == "GO:0005634").sum() == 3
    assert "GO:0000634" not in set(terms["term_id"])
    assert terms.loc[terms["term_id"] == "GO:7777777", "term_name"].tolist() == ["GO:7777777"]
    assert any("1 annotations name 1 terms that go-basic.obo does not have" in note for note in statements.notes)


def test_parents_are_is_a_and_part_of_alone(tmp_path):
    write(tmp_path, ROWS)
    pairs = {tuple(pair) for pair in read(tmp_path).parents.to_numpy()}
    assert pairs == {
        ("GO:0005634", "GO:0005575", "cellular_component"), ("GO:0005730", "GO:0005575", "cellular_component"),
        ("GO:0005730", "GO:0005634", "nucleus"), ("GO:0006355", "GO:0065007", "biological regulation"),
    }  # fmt: skip


def test_accessions_of_other_databases_are_no_uniprot_ids(tmp_path):
    write(tmp_path, ROWS)
    terms = read(tmp_path).terms
    rna = terms[terms["gene_symbol"] == "hsa-mir"]
    assert rna["uniprot_id"].tolist() == [""]
    assert "NAN" in set(terms["gene_symbol"])


def test_a_file_without_a_version_line_is_known_by_its_columns(tmp_path):
    write(tmp_path, ROWS, version="", name="other.gaf")
    statements = read(tmp_path)
    assert adds_up(statements)
    assert "read other.gaf with go-basic.obo" in statements.notes


@pytest.mark.parametrize(
    ("rows", "version", "message"),
    [
        ([row("P1", "A", "", "GO:0005634")[:15]], "", r"is GAF 1\.0 \(15 columns\)"),
        ([row("P1", "A", "", "GO:0005634")], "1.0", r"is GAF 1\.0; GAF 2\.1 and 2\.2"),
        ([row("P1", "A", "", "GO:0005634")], "3.0", r"is GAF 3\.0"),
        ([("UniProtKB", "P1", "GO:0005634")], "2.2", r"is not GAF 2\.1 or 2\.2"),
        ([*ROWS, ROWS[0][:9]], "2.2", "damaged or cut off"),
        ([], "2.2", "nothing of .* is left"),
        ([ROWS[5]], "2.2", "nothing of .* is left"),
    ],
)
def test_other_layouts_and_cut_files_are_refused(tmp_path, rows, version, message):
    write(tmp_path, rows, version=version)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_truncated_archive_a_web_page_and_missing_files(tmp_path):
    write(tmp_path, ROWS * 50)
    path = tmp_path / "HUMAN-uniprot.gaf.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged or cut off"):
        read(tmp_path)
    path.write_text("<html><body>moved</body></html>")
    with pytest.raises(UserError, match="web page"):
        read(tmp_path)
    path.unlink()
    with pytest.raises(
        UserError, match=r"go: none of HUMAN-uniprot\.gaf\.gz, .* is in .*; run scripts/download_databases"
    ):
        read(tmp_path)
    (tmp_path / "a.gaf").write_text("x")
    (tmp_path / "b.gaf").write_text("x")
    with pytest.raises(UserError, match="2 others are, and which to read is not clear"):
        read(tmp_path)


def test_the_real_excerpt():
    folder = excerpt("go")
    statements = read(folder)
    with (folder / "test-uniprot.gaf").open() as file:
        plain = [
            dict(zip(COLUMNS, row, strict=True)) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
    wanted = plain
    assert sum(row["go_id"] == "GO:0005515" for row in plain) == 27
    assert statements.rows_read == len(plain) == 232
    assert adds_up(statements)
    assert list(statements.terms["uniprot_id"]) == [row["object_id"] for row in wanted]
    assert list(statements.terms["term_id"]) == [row["go_id"] for row in wanted]
    assert statements.terms["negative"].sum() == 1
    assert (statements.terms["category"] == "IEA").sum() == sum(row["evidence"] == "IEA" for row in wanted)
    assert any("go-nucleus.obo does not have" in note for note in statements.notes)
    assert statements.parents["parent_id"].str.startswith("GO:").all()
