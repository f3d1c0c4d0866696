"""GWAS Catalog: cells of genes and traits, the p-value, the zip, and the file that is cut off."""

from __future__ import annotations

import csv
import gzip
import zipfile
from pathlib import Path

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases import gwas_catalog
from tests.validation.databases.counts import check, dropped
from tests.validation.excerpts import excerpt

_HEADER = (
    "DATE ADDED TO CATALOG|PUBMEDID|FIRST AUTHOR|DATE|JOURNAL|LINK|STUDY|DISEASE/TRAIT|INITIAL SAMPLE SIZE|REPLICATION SAMPLE SIZE|REGION|"
    "CHR_ID|CHR_POS|REPORTED GENE(S)|MAPPED_GENE|UPSTREAM_GENE_ID|DOWNSTREAM_GENE_ID|SNP_GENE_IDS|UPSTREAM_GENE_DISTANCE|"
    "DOWNSTREAM_GENE_DISTANCE|STRONGEST SNP-RISK ALLELE|SNPS|MERGED|SNP_ID_CURRENT|CONTEXT|INTERGENIC|RISK ALLELE FREQUENCY|P-VALUE|"
    "PVALUE_MLOG|P-VALUE (TEXT)|OR or BETA|95% CI (TEXT)|PLATFORM [SNPS PASSING QC]|CNV|MAPPED_TRAIT|MAPPED_TRAIT_URI|STUDY ACCESSION|"
    "GENOTYPING TECHNOLOGY"
)
HEADER = _HEADER.split("|")
EFO, MONDO = "http://www.ebi.ac.uk/efo/EFO_", "http://purl.obolibrary.org/obo/MONDO_"
ZIP, TSV = "gwas-catalog-associations_ontology-annotated-full.zip", "gwas-catalog-download-associations-alt-full.tsv"


def association(
    genes: str, inside: str = "", sides: tuple[str, str] = ("", ""), mlog: str = "9.0", **cells: str
) -> str:
    row = dict.fromkeys(HEADER, "") | {
        "DATE ADDED TO CATALOG": "2031-02-03", "STUDY": 'A "quoted study', "MAPPED_GENE": genes, "SNP_GENE_IDS": inside,
        "UPSTREAM_GENE_ID": sides[0], "DOWNSTREAM_GENE_ID": sides[1], "PVALUE_MLOG": mlog, "P-VALUE": "0", "CONTEXT": "intron_variant",
        "MAPPED_TRAIT": "blue nails, childhood onset", "MAPPED_TRAIT_URI": f"{EFO}0000001",
    }  # fmt: skip
    return "\t".join((row | cells)[name] for name in HEADER)


def written(folder: Path, rows: list[str], name: str = TSV) -> Path:
    text = "".join(f"{line}\r\n" for line in ["\t".join(HEADER), *rows])
    if name.endswith(".zip"):
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(TSV, text)
    else:
        (folder / name).write_bytes(text.encode())
    return folder


def genes(statements) -> list[tuple[str, str, str]]:
    return sorted(statements.terms[["gene_symbol", "ensembl_id", "category"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("name", [ZIP, TSV, "gwas_catalog_v1.0.2-associations_e114_r2026-09-04.tsv"])
def test_one_row_per_association_gene_and_trait(tmp_path: Path, name: str) -> None:
    rows = [
        association("AAA", "ENSG01"),
        association("AAA, BBB", "ENSG01, ENSG02"),
        association("HLA-A - NKX2-1", sides=("ENSG03", "ENSG04")),
        association("CCC", "ENSG05", mlog="7.2"),  # below genome-wide
        association("CCC", "ENSG05", MAPPED_TRAIT_URI="", MAPPED_TRAIT=""),
        association(""),
        association("CCC", "ENSG05", mlog=""),
    ]
    statements = gwas_catalog.read(written(tmp_path, rows, name))
    check(statements, rows_read=7)
    assert statements.dropped == {
        "not genome-wide": 1,
        "no ontology term": 1,
        "no mapped gene": 1,
        "no p-value": 1,
    }
    assert genes(statements) == [
        ("AAA", "ENSG01", "in-gene"), ("AAA", "ENSG01", "in-gene"), ("BBB", "ENSG02", "in-gene"),
        ("HLA-A", "ENSG03", "intergenic"), ("NKX2-1", "ENSG04", "intergenic"),
    ]  # fmt: skip
    assert set(statements.terms["term_id"]) == {"EFO:0000001"}
    assert set(statements.terms["term_name"]) == {"blue nails, childhood onset"}
    assert set(statements.terms["score"]) == {9.0}
    assert set(statements.terms["evidence"]) == {"intron_variant"}
    assert statements.version == ("2026-09-04" if "_r" in name else "")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (association("UBR - NA", sides=("ENSG01", "")), [("UBR", "ENSG01", "intergenic")]),
        (association("NA - UBR", sides=("", "ENSG01")), [("UBR", "ENSG01", "intergenic")]),
        (association("NA - UBR", sides=("NA", "ENSG01")), [("UBR", "ENSG01", "intergenic")]),
        (association("AAA x BBB"), [("AAA", "", "in-gene"), ("BBB", "", "in-gene")]),
        (association("AAA; BBB; AAA", "ENSG01; ENSG02; ENSG01"),
         [("AAA", "ENSG01", "in-gene"), ("AAA", "ENSG01", "in-gene"), ("BBB", "ENSG02", "in-gene")]),
        (association("AAA; BBB - CCC", "ENSG01", ("ENSG02", "ENSG03")),
         [("AAA", "ENSG01", "in-gene"), ("BBB", "ENSG02", "intergenic"), ("CCC", "ENSG03", "intergenic")]),
        (association("AAA", "ENSG01, ENSG02"), [("", "ENSG01", "in-gene"), ("", "ENSG02", "in-gene"), ("AAA", "", "in-gene")]),
        (association("", "ENSG01.7"), [("", "ENSG01", "in-gene")]),
        (association("DDX11L1, NA", ""), [("DDX11L1", "", "in-gene")]),
    ],
)  # fmt: skip
def test_cells_of_genes(tmp_path: Path, row: str, expected: list[tuple[str, str, str]]) -> None:
    statements = gwas_catalog.read(written(tmp_path, [row]))
    assert genes(statements) == expected
    assert not statements.dropped


def test_a_cell_without_any_gene_is_counted(tmp_path: Path) -> None:
    statements = gwas_catalog.read(written(tmp_path, [association("NA - NA"), association("AAA")]))
    check(statements, rows_read=2)
    assert statements.dropped == {"no mapped gene": 1}


def test_nothing_is_genome_wide(tmp_path: Path) -> None:
    statements = gwas_catalog.read(written(tmp_path, [association("AAA", mlog="6"), association("BBB", mlog="5")]))
    assert statements.dropped == {"not genome-wide": 2}
    assert statements.terms.empty


def test_a_cell_without_any_trait_is_counted(tmp_path: Path) -> None:
    statements = gwas_catalog.read(written(tmp_path, [association("AAA", MAPPED_TRAIT_URI=", "), association("AAA")]))
    check(statements, rows_read=2)
    assert statements.dropped == {"no ontology term": 1}


def test_old_ids_are_those_of_ncbi(tmp_path: Path) -> None:
    terms = gwas_catalog.read(written(tmp_path, [association("AAA", "348")])).terms
    assert terms[["gene_symbol", "ensembl_id", "entrez_id"]].to_numpy().tolist() == [["AAA", "", "348"]]


def test_several_traits_in_a_cell(tmp_path: Path) -> None:
    two = f"{EFO}0000001, {MONDO}0000002"
    rows = [
        association("AAA", MAPPED_TRAIT="blue nails, childhood onset, red hair", MAPPED_TRAIT_URI=two),
        association("BBB"),
        association("CCC", MAPPED_TRAIT="odd, even", MAPPED_TRAIT_URI=f"{EFO}0000003, {EFO}0000004"),
        association("DDD", MAPPED_TRAIT="a rare one", MAPPED_TRAIT_URI="http://www.orpha.net/ORDO/Orphanet_183"),
    ]
    statements = gwas_catalog.read(written(tmp_path, rows))
    check(statements, rows_read=4)
    found = set(statements.terms[["gene_symbol", "term_id", "term_name"]].itertuples(index=False, name=None))
    assert found == {
        ("AAA", "EFO:0000001", "blue nails, childhood onset"), ("AAA", "MONDO:0000002", "MONDO:0000002"),
        ("BBB", "EFO:0000001", "blue nails, childhood onset"), ("CCC", "EFO:0000003", "odd"), ("CCC", "EFO:0000004", "even"),
        ("DDD", "ORPHA:183", "a rare one"),
    }  # fmt: skip


def test_p_values_by_their_logarithm(tmp_path: Path) -> None:
    rows = [association("AAA", mlog=mlog) for mlog in ("7.299", "7.3", "7.30103", "1234.5", "Infinity")]
    statements = gwas_catalog.read(written(tmp_path, rows))
    assert statements.dropped == {"not genome-wide": 1}
    assert statements.terms["score"].dropna().tolist() == [7.3, 7.30103, 1234.5]
    assert len(statements.terms) == 4


def test_the_plain_old_file_is_refused_where_it_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, [association("AAA")] * 2, gwas_catalog.PLAIN)
    statements = gwas_catalog.read(tmp_path)  # cut out by a person
    assert len(statements.terms) == 2
    assert any("2 rows: an excerpt" in note for note in statements.notes)
    monkeypatch.setattr(gwas_catalog, "EXCERPT_ROWS", 2)  # as many rows as the file on the server would have
    with pytest.raises(UserError, match="2 rows and should have more than 1,000,000"):
        gwas_catalog.read(tmp_path)


def test_the_kind_without_terms_of_an_ontology(tmp_path: Path) -> None:
    """v1.0 has the trait in the words of the paper alone, commas and all."""
    name = "gwas_catalog_v1.0-associations_e115_r2026-04-21.tsv.gz"
    rows = [
        association("AAA", **{"DISEASE/TRAIT": "Asthma, childhood onset"}),
        association("BBB", **{"DISEASE/TRAIT": ""}),
    ]
    at = [i for i, column in enumerate(HEADER) if not column.startswith("MAPPED_TRAIT")]
    text = "\r\n".join("\t".join(line.split("\t")[i] for i in at) for line in ["\t".join(HEADER), *rows])
    (tmp_path / name).write_bytes(gzip.compress((text + "\r\n").encode()))
    statements = gwas_catalog.read(tmp_path)
    assert statements.version == "2026-04-21"
    assert statements.terms[["term_id", "term_name", "gene_symbol"]].to_numpy().tolist() == [
        ["Asthma, childhood onset", "Asthma, childhood onset", "AAA"]
    ]
    assert statements.dropped == {"no ontology term": 1}
    assert any("words of its paper" in note for note in statements.notes)


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of"):
        gwas_catalog.read(tmp_path)
    with pytest.raises(UserError, match="no rows"):
        gwas_catalog.read(written(tmp_path, []))
    (tmp_path / TSV).write_text("DATE ADDED TO CATALOG\tSTUDY\n1\t2\n")  # a table of studies
    with pytest.raises(UserError, match="no column 'MAPPED_GENE'"):
        gwas_catalog.read(tmp_path)
    written(tmp_path, [association("AAA"), "2031\tcut"])
    with pytest.raises(UserError, match="damaged or cut off"):
        gwas_catalog.read(tmp_path)
    (tmp_path / TSV).write_text("<!DOCTYPE html><html>")
    with pytest.raises(UserError, match="web page"):
        gwas_catalog.read(tmp_path)
    written(tmp_path, [association(f"GENE{i}", f"ENSG{i:011d}") for i in range(500)], ZIP)
    whole = (tmp_path / ZIP).read_bytes()
    (tmp_path / ZIP).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged or cut off"):
        gwas_catalog.read(tmp_path)


def test_excerpt() -> None:
    """Counts from reading it with the csv module."""
    folder = excerpt("gwas_catalog")
    with (folder / TSV).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    expected = set()
    for row in rows:
        names = row["MAPPED_GENE"].split(" - ") if " - " in row["MAPPED_GENE"] else row["MAPPED_GENE"].split(", ")
        ids = [row["UPSTREAM_GENE_ID"], row["DOWNSTREAM_GENE_ID"]]
        ids = ids if any(ids) else row["SNP_GENE_IDS"].split(", ")
        kind = "intergenic" if " - " in row["MAPPED_GENE"] else "in-gene"
        expected |= {(name, gene, kind) for name, gene in zip(names, ids, strict=True) if name}
    statements = gwas_catalog.read(folder)
    check(statements, rows_read=19)
    assert set(genes(statements)) == expected
    assert statements.rows_read - dropped(statements) == sum(bool(row["MAPPED_GENE"]) for row in rows) == 17
    assert set(statements.terms["term_id"]) == {"EFO:0007991"}
