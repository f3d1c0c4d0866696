"""ClinVar: one assembly, the meaning by text, several genes, and ids of conditions."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases import clinvar
from tests.validation.databases.counts import check, dropped
from tests.validation.excerpts import excerpt

_OLD = (
    "AlleleID|Type|Name|GeneID|GeneSymbol|HGNC_ID|ClinicalSignificance|ClinSigSimple|LastEvaluated|RS# (dbSNP)|nsv/esv (dbVar)|"
    "RCVaccession|PhenotypeIDS|PhenotypeList|Origin|OriginSimple|Assembly|ChromosomeAccession|Chromosome|Start|Stop|ReferenceAllele|"
    "AlternateAllele|Cytogenetic|ReviewStatus|NumberSubmitters|Guidelines|TestedInGTR|OtherIDs|SubmitterCategories|VariationID|"
    "PositionVCF|ReferenceAlleleVCF|AlternateAlleleVCF"
)
_SINCE_2024 = (
    "SomaticClinicalImpact|SomaticClinicalImpactLastEvaluated|ReviewStatusClinicalImpact|Oncogenicity|OncogenicityLastEvaluated|"
    "ReviewStatusOncogenicity|SCVsForAggregateGermlineClassification|SCVsForAggregateSomaticClinicalImpact|"
    "SCVsForAggregateOncogenicityClassification"
)
OLD = _OLD.split("|")
NEW = [*OLD, *_SINCE_2024.split("|")]
SINGLE, PANEL = "criteria provided, single submitter", "reviewed by expert panel"
ONE = "MONDO:MONDO:0000001,MedGen:C0000001,OMIM:100001,Orphanet:11"


def variants(folder: Path, rows: list[dict[str, str]], header: list[str] = NEW) -> Path:
    """Each row twice, as the file has it: one per assembly."""
    default = dict.fromkeys(header, "-") | {
        "Name": 'c.1A>G "quoted', "GeneID": "7", "GeneSymbol": "AAA", "HGNC_ID": "HGNC:7", "ClinicalSignificance": "Pathogenic",
        "PhenotypeIDS": ONE, "PhenotypeList": "Blue nails", "ReviewStatus": SINGLE,
    }  # fmt: skip
    both = [default | row | {"Assembly": build} for row in rows for build in ("GRCh37", "GRCh38")]
    lines = ["#" + "\t".join(header), *("\t".join(row[name] for name in header) for row in both)]
    (folder / "variant_summary.txt.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return folder


def claims(folder: Path, rows: list[str], header: str = "") -> Path:
    header = (
        header
        or "#GeneID AssociatedGenes RelatedGenes ConceptID DiseaseName SourceName SourceID DiseaseMIM LastUpdated"
    )
    lines = ["\t".join(header.split()), *(row.replace("|", "\t") for row in rows)]
    (folder / "gene_condition_source_id").write_text("".join(f"{line}\n" for line in lines))
    return folder


def found(statements) -> set[tuple]:
    return set(statements.terms[["entrez_id", "term_id", "category", "negative"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("header", [OLD, NEW], ids=["34 columns", "43 columns"])
def test_one_assembly_and_several_variants(tmp_path: Path, header: list[str]) -> None:
    rows = [
        {},
        {"ReviewStatus": PANEL},
        {"ReviewStatus": "no assertion criteria provided"},
        {"GeneID": "8", "HGNC_ID": "-", "GeneSymbol": "-"},
    ]
    statements = clinvar.read(variants(tmp_path, rows, header))
    check(statements, rows_read=8)
    assert statements.dropped == {"another assembly than GRCh38": 4, "duplicate": 2}
    assert len(statements.terms) == 8 - dropped(statements)
    terms = statements.terms.set_index("entrez_id")
    assert terms.loc["7", ["hgnc_id", "gene_symbol", "term_name"]].tolist() == ["HGNC:7", "AAA", "Blue nails"]
    assert terms.loc["7", ["evidence", "score"]].tolist() == [PANEL, 3.0]
    assert terms.loc["8", ["hgnc_id", "gene_symbol"]].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("Pathogenic", "pathogenic"), ("Likely pathogenic", "pathogenic"), ("Pathogenic/Likely pathogenic", "pathogenic"),
        ("Pathogenic/Likely pathogenic; risk factor", "pathogenic"), ("drug response; Pathogenic", "pathogenic"),
        ("Pathogenic, low penetrance", "pathogenic"), ("Benign", "benign"), ("Likely benign", "benign"), ("Benign/Likely benign", "benign"),
        ("Conflicting classifications of pathogenicity", "conflicting classifications"),
        ("Conflicting interpretations of pathogenicity, risk factor", "conflicting classifications"),
        ("Uncertain significance", "neither pathogenic nor benign"), ("not provided", "neither pathogenic nor benign"),
        ("-", "neither pathogenic nor benign"), ("risk factor", "neither pathogenic nor benign"),
    ],
)  # fmt: skip
def test_the_meaning_is_taken_from_the_text(tmp_path: Path, text: str, category: str) -> None:
    statements = clinvar.read(variants(tmp_path, [{"ClinicalSignificance": text, "ClinSigSimple": "1"}]))
    assert statements.rows_read == 2
    if category in ("pathogenic", "benign"):
        assert found(statements) == {("7", "MONDO:0000001", category, category == "benign")}
        assert dropped(statements) == 1
    else:
        assert statements.dropped == {"another assembly than GRCh38": 1, category: 1}
        assert statements.terms.empty


def test_benign_and_pathogenic_stay_apart(tmp_path: Path) -> None:
    statements = clinvar.read(variants(tmp_path, [{}, {"ClinicalSignificance": "Benign"}]))
    assert found(statements) == {
        ("7", "MONDO:0000001", "pathogenic", False),
        ("7", "MONDO:0000001", "benign", True),
    }


def test_rows_of_several_genes_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"GeneID": "-1", "GeneSymbol": "AAA;BBB"},
        {"GeneID": "-1", "GeneSymbol": "AAA,BBB"},
        {"GeneID": "-1", "GeneSymbol": "-", "HGNC_ID": "-"},
        {},
    ]
    statements = clinvar.read(variants(tmp_path, rows))
    check(statements, rows_read=8)
    assert statements.dropped == {"another assembly than GRCh38": 4, "several genes": 2, "no gene": 1}


@pytest.mark.parametrize(
    ("ids", "names", "expected"),
    [
        ("MONDO:MONDO:0000001,MedGen:C1", "A", {("MONDO:0000001", "A")}),
        ("MONDO:0000001,MedGen:C1", "A", {("MONDO:0000001", "A")}),
        ("MedGen:C0000001,OMIM:100001,Orphanet:11", "A", {("OMIM:100001", "A")}),
        ("MedGen:C0000001,OMIM:PS100001,Orphanet:ORPHA11", "A", {("ORPHA:11", "A")}),
        ("Human Phenotype Ontology:HP:0000001,MedGen:C0000001", "A", {("HP:0000001", "A")}),
        ("MedGen:CN000001", "A", {("MedGen:CN000001", "A")}),
        ("MedGen:C0000001|MedGen:C3661900|MedGen:C0000002;MedGen:C0000003", "A|not provided|B;C",
         {("MedGen:C0000001", "A"), ("MedGen:C0000002", "B"), ("MedGen:C0000003", "C")}),
        ("MedGen:C0000001||MedGen:C3661900", "A|B|not provided", {("MedGen:C0000001", "A")}),
        ("MedGen:C0000001|MedGen:C0000002", "A|B|C", {("MedGen:C0000001", "MedGen:C0000001"), ("MedGen:C0000002", "MedGen:C0000002")}),
        ("MedGen:CN517202", "not provided", set()), ("MedGen:CN169374", "not specified", set()), ("-", "7 conditions", set()),
        ("na", "See cases", set()),
    ],
)  # fmt: skip
def test_conditions(tmp_path: Path, ids: str, names: str, expected: set[tuple[str, str]]) -> None:
    statements = clinvar.read(variants(tmp_path, [{"PhenotypeIDS": ids, "PhenotypeList": names}]))
    assert set(statements.terms[["term_id", "term_name"]].itertuples(index=False, name=None)) == expected
    assert dropped(statements) == (1 if expected else 2)


def test_batches_of_rows_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"GeneID": str(i % 9), "ReviewStatus": PANEL if i == 70 else SINGLE, "PhenotypeList": "x" * 50}
        for i in range(90)
    ]
    whole = clinvar.read(variants(tmp_path, rows))
    batches = clinvar.text_batches
    monkeypatch.setattr(clinvar, "text_batches", lambda path, names: batches(path, names, batch_bytes=2048))
    parted = clinvar.read(tmp_path)
    assert parted.terms.equals(whole.terms)
    assert (parted.rows_read, parted.dropped) == (whole.rows_read, whole.dropped) == (
        180, {"another assembly than GRCh38": 90, "duplicate": 81},
    )  # fmt: skip


CLAIMS = [
    "348|APOE||C0000001|Disease A|MONDO|MONDO:0000009|100001|Mar  2 2016",
    "348|APOE||C0000001|Disease A|||100001|Mar  2 2016",  # the same condition of another source
    "348|APOE||C0000001|Disease A|MONDO|MONDO:0000009|100001|Mar  2 2016",  # an exact duplicate
    "348|APOE||C0000002|Disease B|||100002|Feb 16 2016",
    "348||APOE|C0000003|Disease C|Human Phenotype Ontology|HP:0000003||Feb 19 2020",
    "349|||C0000004|Disease D||||Feb 19 2020",
    "-1|X||C0000004|Disease D||||Feb 19 2020",
    "350|Y||C3661900|not provided||||Feb 19 2020",
    "350|Y|||Disease E||||Feb 19 2020",
]


def test_claims(tmp_path: Path) -> None:
    statements = clinvar.read(claims(tmp_path, CLAIMS))
    check(statements, rows_read=9)
    assert statements.dropped == {
        "duplicate": 2, "no gene": 1, "no condition named": 1, "condition without an id": 1,
    }  # fmt: skip
    assert len(statements.terms) == 9 - dropped(statements)
    assert found(statements) == {
        ("348", "MONDO:0000009", "associated", False), ("348", "OMIM:100002", "associated", False),
        ("348", "HP:0000003", "related", False), ("349", "MedGen:C0000004", "associated", False),
    }  # fmt: skip
    assert statements.terms["gene_symbol"].tolist() == ["APOE", "APOE", "APOE", ""]


def test_claims_with_one_column_of_genes(tmp_path: Path) -> None:
    header = "#GeneID GeneSymbol ConceptID DiseaseName SourceName SourceID DiseaseMIM LastUpdated"
    folder = claims(tmp_path, ["348|APOE|C0000001|Disease A|||100001|Mar  2 2016"], header)
    assert found(clinvar.read(folder)) == {("348", "OMIM:100001", "associated", False)}


def test_both_files(tmp_path: Path) -> None:
    statements = clinvar.read(claims(variants(tmp_path, [{}]), CLAIMS))
    check(statements, rows_read=11)
    assert set(statements.terms["category"]) == {"associated", "related", "pathogenic"}
    assert not statements.notes


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither gene_condition_source_id nor variant_summary"):
        clinvar.read(tmp_path)
    with pytest.raises(UserError, match="no rows"):
        clinvar.read(claims(tmp_path, []))
    with pytest.raises(UserError, match="no column 'ConceptID'"):
        clinvar.read(claims(tmp_path, ["1|A"], "#GeneID GeneSymbol"))
    (tmp_path / "gene_condition_source_id").unlink()
    with pytest.raises(UserError, match="no rows"):
        clinvar.read(variants(tmp_path, []))
    with pytest.raises(UserError, match="no column 'Assembly'"):
        clinvar.read(variants(tmp_path, [{}], [name for name in OLD if name != "Assembly"]))
    path = variants(tmp_path, [{"Name": str(i * 7919)} for i in range(500)]) / "variant_summary.txt.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="damaged or cut off"):
        clinvar.read(tmp_path)


def test_excerpt() -> None:
    """Counts from reading it with the csv module."""
    folder = excerpt("clinvar")
    with gzip.open(folder / "variant_summary.txt.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    expected = {
        (row["GeneID"], part.split("MONDO:MONDO:")[1].split(",")[0])
        for row in rows
        if row["Assembly"] == "GRCh38" and row["ClinicalSignificance"] == "Pathogenic"
        for part in row["PhenotypeIDS"].split("|")
        if "MONDO:MONDO:" in part
    }
    statements = clinvar.read(folder)
    check(statements, rows_read=len(rows) == 12 and 12)
    assert found(statements) == {(gene, f"MONDO:{number}", "pathogenic", False) for gene, number in expected}
    assert len(expected) == 4
