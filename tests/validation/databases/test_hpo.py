"""HPO: which of the files is read, what is a phenotype, negatives by frequency, and old or damaged layouts."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pandas as pd
import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.hpo import read
from sae_genomics.validation.normal_form.ontology import read_ontology
from tests.validation.databases.true_files import adds_up, write_rows
from tests.validation.excerpts import excerpt

OBO = "format-version: 1.2\ndata-version: hp/releases/2026-09-01\nontology: hp\n"
# id, name, parents; the roots of the phenotypes and of the modes of inheritance
TERMS = [
    ("HP:0000001", "All", ()),
    ("HP:0000118", "Phenotypic abnormality", ("HP:0000001",)),
    ("HP:0000005", "Mode of inheritance", ("HP:0000001",)),
    ("HP:0000007", "Autosomal recessive inheritance", ("HP:0000005",)),
    ("HP:0000152", "Abnormality of head or neck", ("HP:0000118",)),
    ("HP:0000252", "Microcephaly", ("HP:0000152",)),
    ("HP:0001250", "Seizure", ("HP:0000118",)),
    ("HP:0002460", "Distal muscle weakness", ("HP:0000118",)),
]
OLD = "alt_id: HP:0000999\n"
GONE = "\n[Term]\nid: HP:0000888\nname: obsolete thing\nis_obsolete: true\n"
NEW = ["ncbi_gene_id", "gene_symbol", "hpo_id", "hpo_name", "frequency", "disease_id"]
ROWS = [
    ("10", "NAT2", "HP:0000007", "Autosomal recessive inheritance", "-", "OMIM:243400"),
    ("16", "AARS1", "HP:0002460", "Distal muscle weakness", "15/15", "OMIM:613287"),
    ("16", "AARS1", "HP:0000252", "Microcephaly", "3/12", "OMIM:613287"),
    ("16", "AARS1", "HP:0000252", "Microcephaly", "HP:0040283", "ORPHA:442835"),
    ("16", "AARS1", "HP:0001250", "Seizure", "0/7", "OMIM:613287"),
    ("17", "NA", "HP:0001250", "Seizure", "0%", "OMIM:1"),
    ("17", "NA", "HP:0000252", "Microcephaly", "0.0 %", "OMIM:1"),
    ("17", "NA", "HP:0002460", "Distal muscle weakness", "HP:0040285", "OMIM:1"),
    ("18", "ABAT", "HP:0002460", "Distal muscle weakness", "Excluded", "OMIM:2"),
    ("18", "ABAT", "HP:0001250", "Seizure", "60%", "OMIM:2"),
    ("18", "ABAT", "HP:0000999", "Small head", "-", "OMIM:2"),
    ("18", "ABAT", "HP:0000888", "obsolete thing", "-", "OMIM:2"),
    ("18", "ABAT", "HP:7777777", "newer than the ontology", "-", "OMIM:2"),
    ("18", "ABAT", "HP:0000118", "Phenotypic abnormality", "-", "OMIM:2"),
    ("-", "-", "HP:0001250", "Seizure", "-", "OMIM:3"),
]
EXCLUDED = {
    ("16", "HP:0001250"),
    ("17", "HP:0001250"),
    ("17", "HP:0000252"),
    ("17", "HP:0002460"),
    ("18", "HP:0002460"),
}


def obo(terms: list = TERMS) -> str:
    stanzas = [
        f"\n[Term]\nid: {term}\nname: {name}\n{OLD if term == 'HP:0000252' else ''}" + "".join(f"is_a: {parent}\n" for parent in parents)
        for term, name, parents in terms
    ]  # fmt: skip
    return OBO + "".join(stanzas) + GONE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hp.obo").write_text(obo())
    write_rows(tmp_path / "genes_to_phenotype.txt", [NEW, *ROWS])
    return tmp_path


def test_every_row_is_kept_or_counted(folder):
    statements = read(folder)
    assert statements.rows_read == len(ROWS)
    assert adds_up(statements)
    assert statements.dropped == {
        "no gene": 1,
        "term is not in hp.obo": 1,
        "obsolete term": 1,
    }
    assert statements.version == "2026-09-01"
    assert not statements.propagated
    with (folder / "genes_to_phenotype.txt").open() as file:
        plain = list(csv.DictReader(file, delimiter="\t"))
    allowed = {"HP:0000252", "HP:0001250", "HP:0002460", "HP:0000999", "HP:0000007", "HP:0000118"}
    expected = sorted((row["ncbi_gene_id"], row["hpo_id"].replace("HP:0000999", "HP:0000252")) for row in plain
                      if row["hpo_id"] in allowed and row["ncbi_gene_id"] != "-")  # fmt: skip
    assert sorted(zip(statements.terms["entrez_id"], statements.terms["term_id"], strict=True)) == expected
    # An old id takes the id and the name of today; a gene called NA is a gene.
    assert set(statements.terms["term_name"]) == {
        "Microcephaly", "Seizure", "Distal muscle weakness", "Autosomal recessive inheritance", "Phenotypic abnormality",
    }  # fmt: skip
    assert "NA" in set(statements.terms["gene_symbol"])


def test_frequencies_that_say_none_are_negative_and_the_others_are_shares(folder):
    terms = read(folder).terms
    negative = terms[terms["negative"]]
    assert set(zip(negative["entrez_id"], negative["term_id"], strict=True)) == EXCLUDED
    assert (negative["score"] == 0).all()
    score = {(gene, disease, term): value for gene, disease, term, value in
             terms[["entrez_id", "evidence", "term_id", "score"]].itertuples(index=False)}  # fmt: skip
    assert score["16", "OMIM:613287", "HP:0002460"] == 1.0
    assert score["16", "OMIM:613287", "HP:0000252"] == 0.25
    assert score["16", "ORPHA:442835", "HP:0000252"] == 0.17
    assert score["18", "OMIM:2", "HP:0001250"] == 0.6
    assert terms["score"].isna().sum() == 3  # those without a frequency


def test_what_is_no_phenotype_is_marked_and_says_of_which_branch_it_is(folder):
    statements = read(folder)
    assert {
        term: category for term, category in zip(statements.terms["term_id"], statements.terms["category"], strict=True)
        if category != "phenotype"
    } == {"HP:0000007": "mode of inheritance", "HP:0000118": "too general"}  # fmt: skip
    assert statements.says_little["HP:0000007"] == statements.says_little["HP:0000005"] == "mode of inheritance"
    assert statements.says_little["HP:0000118"] == "too general"
    assert not {"HP:0000252", "HP:0000152", "HP:0001250"} & set(statements.says_little)


def test_parents_are_those_among_phenotypes(folder):
    assert read(folder).parents.to_numpy().tolist() == [["HP:0000252", "HP:0000152", "Abnormality of head or neck"]]


def test_the_file_with_frequencies_comes_before_the_two_others(folder):
    write_rows(folder / "phenotype_to_genes.txt", [["hpo_id", "hpo_name", "ncbi_gene_id", "gene_symbol", "disease_id"]])
    write_rows(folder / "genes_to_disease.txt", [["anything"]])
    statements = read(folder)
    assert statements.rows_read == len(ROWS)
    assert "read genes_to_phenotype.txt and not phenotype_to_genes.txt and genes_to_disease.txt" in statements.notes[0]


def test_the_propagated_file_is_not_propagated_again(folder):
    (folder / "genes_to_phenotype.txt").unlink()
    write_rows(folder / "phenotype_to_genes.txt", [
        ("hpo_id", "hpo_name", "ncbi_gene_id", "gene_symbol", "disease_id"),
        ("HP:0000252", "Microcephaly", "16", "AARS1", "OMIM:613287"), ("HP:0000152", "Abnormality of head or neck", "16", "AARS1", "ORPHA:"),
        ("HP:0000007", "Autosomal recessive inheritance", "16", "AARS1", "OMIM:613287"),
    ])  # fmt: skip
    statements = read(folder)
    assert statements.propagated
    assert adds_up(statements)
    assert sorted(statements.terms["term_id"]) == ["HP:0000007", "HP:0000152", "HP:0000252"]
    assert statements.dropped == {}
    assert any("gives no frequencies" in note for note in statements.notes)


def test_diseases_have_prefixed_gene_ids_and_types(tmp_path):
    write_rows(tmp_path / "genes_to_disease.txt", [
        ("ncbi_gene_id", "gene_symbol", "association_type", "disease_id", "source"),
        ("NCBIGene:64170", "CARD9", "MENDELIAN", "OMIM:212050", "m"), ("NCBIGene:1", "A1BG", "UNKNOWN", "ORPHA:7", "o"),
        ("NCBIGene:2", "A2M", "POLYGENIC", "ORPHA:", "o"),
    ])  # fmt: skip
    write_rows(tmp_path / "phenotype.hpoa", [
        ("database_id", "disease_name", "qualifier"), ("OMIM:212050", "Candidiasis", ""), ("OMIM:212050", "Candidiasis", "NOT"),
    ], before="#description: x\n#version: 2026-09-01\n#tracker: x\n#hpo-version: x\n")  # fmt: skip
    statements = read(tmp_path)
    assert adds_up(statements)
    assert statements.dropped == {"disease without a number": 1}
    assert list(statements.terms["entrez_id"]) == ["64170", "1"]
    assert list(statements.terms["category"]) == ["MENDELIAN", "UNKNOWN"]
    assert list(statements.terms["term_name"]) == ["Candidiasis", "ORPHA:7"]
    assert statements.parents is None


def test_a_hierarchy_without_its_root_is_told(folder):
    (folder / "hp.obo").write_text(obo([row for row in TERMS if row[0] not in ("HP:0000118", "HP:0000152")]))
    statements = read(folder)
    assert adds_up(statements)
    # Microcephaly hangs on a term that is not there, so that it cannot be known to be a phenotype.
    phenotypes = statements.terms["category"] == "phenotype"
    assert set(statements.terms.loc[phenotypes, "term_id"]) == {"HP:0001250", "HP:0002460"}
    assert statements.says_little["HP:0000252"] == "not below HP:0000118"
    notes = " ".join(statements.notes)
    assert "HP:0000118 (phenotypic abnormality) is not in it" in notes
    assert "3 of 5 parents are not in the file" in notes


def test_symbols_that_are_dashes_are_told_and_the_ids_are_used(folder):
    write_rows(folder / "genes_to_phenotype.txt", [NEW, *((row[0], "-", *row[2:]) for row in ROWS)])
    statements = read(folder)
    assert adds_up(statements)
    assert set(statements.terms["gene_symbol"]) == {""}
    assert set(statements.terms["entrez_id"]) == {"10", "16", "17", "18"}
    assert any("have no symbol" in note for note in statements.notes)


def test_a_disease_with_hundreds_of_genes_is_left_out(folder):
    wrong = [(str(1000 + i), f"G{i}", "HP:0001250", "Seizure", "-", "OMIM:615777") for i in range(201)]
    write_rows(folder / "genes_to_phenotype.txt", [NEW, *ROWS, *wrong])
    statements = read(folder)
    assert adds_up(statements)
    assert statements.dropped["disease with more than 200 genes"] == 201
    assert any("OMIM:615777" in note for note in statements.notes)


FORMAT = "#Format: entrez-gene-id<tab>entrez-gene-symbol<tab>HPO-Term-Name<tab>HPO-Term-ID"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{FORMAT}\n8192\tCLPP\tPrimary amenorrhea\tSeizure\n", "'Seizure' where an id like HP:0000118"),
        (f"{FORMAT}<tab>Frequency-Raw\n8192\tCLPP\tHP:0001250\tSeizure\t-\tHP:0040283\n", "damaged or cut off"),
        ("\t".join(NEW) + "\n", "a header and no rows"),
        ("\t".join(NEW) + "\n16\tAARS1\tHP:00", "damaged or cut off"),
        ("<!DOCTYPE html>\n<html>", "web page"),
        ("gene\tterm\n1\t2\n", "no column 'ncbi_gene_id'"),
    ],
)  # fmt: skip
def test_old_and_damaged_files_are_refused_by_name(folder, text, message):
    (folder / "genes_to_phenotype.txt").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read(folder)
    assert "genes_to_phenotype.txt" in str(error.value)
    assert "\n" not in str(error.value)


NINE = (
    f"{FORMAT}<tab>Frequency-Raw<tab>Frequency-HPO<tab>Additional Info from G-D source<tab>G-D source<tab>disease-ID for link\n"
    "16\tAARS1\tHP:0001250\tSeizure\t\tHP:0040283\t\torphadata\tORPHA:442835\n"  # id and name the other way round
    "16\tAARS1\tHP:0000252\tMicrocephaly\t0/7\t\t-\tmim2gene\tOMIM:613287\n"
    "17\tAMT\tHP:0000007\tAutosomal recessive inheritance\t\t\t-\tmim2gene\tOMIM:1\n"
)
SEVEN = (
    "#Format: HPO-id<tab>HPO label<tab>entrez-gene-id<tab>entrez-gene-symbol<tab>Additional Info from G-D source<tab>G-D source"
    "<tab>disease-ID for link\n"
    "HP:0001250\tSeizure\t16\tAARS1\t\torphadata\tORPHA:442835\nHP:0000152\tHead\t17\tAMT\t-\tmim2gene\tOMIM:1\n"
)
FOUR = f"{FORMAT}\n16\tAARS1\tSeizure\tHP:0001250\n17\tAMT\tAutosomal recessive inheritance\tHP:0000007\n"
SPRING_2023 = "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\n16\tAARS1\tHP:0001250\tSeizure\n"
NO_FREQUENCIES = "gives no frequencies"


@pytest.mark.parametrize(
    ("name", "text", "expected", "says"),
    [
        ("genes_to_phenotype.txt", NINE, [("HP:0001250", "16", 0.17, "ORPHA:442835"), ("HP:0000252", "16", 0.0, "OMIM:613287"),
                                          ("HP:0000007", "17", None, "OMIM:1")], r"before 2023 \(9 columns\), whose first line"),
        ("phenotype_to_genes.txt", SEVEN, [("HP:0001250", "16", None, "ORPHA:442835"), ("HP:0000152", "17", None, "OMIM:1")], "7 columns"),
        ("genes_to_phenotype.txt", FOUR, [("HP:0001250", "16", None, ""), ("HP:0000007", "17", None, "")], NO_FREQUENCIES),
        ("genes_to_phenotype.txt", SPRING_2023, [("HP:0001250", "16", None, "")], NO_FREQUENCIES),
    ],
    ids=["nine", "seven", "four", "spring 2023"],
)  # fmt: skip
def test_old_layouts(folder, name, text, expected, says):
    (folder / "genes_to_phenotype.txt").unlink()
    (folder / name).write_text(text)
    statements = read(folder)
    assert adds_up(statements)
    table = statements.terms
    score = [None if pd.isna(value) else value for value in table["score"]]
    assert list(zip(table["term_id"], table["entrez_id"], score, table["evidence"], strict=True)) == expected
    assert table["negative"].tolist() == [value == 0.0 for value in score]
    assert statements.propagated == (name == "phenotype_to_genes.txt")
    assert any(re.search(says, note) for note in statements.notes)
    inheritance = table[table["term_id"] == "HP:0000007"]
    assert (inheritance["category"] == "mode of inheritance").all()


def test_phenotypes_without_the_ontology_are_refused(folder):
    (folder / "hp.obo").unlink()
    with pytest.raises(UserError, match=r"hpo: none of hp\.obo is in"):
        read(folder)


def test_nothing_left_is_refused(folder):
    write_rows(folder / "genes_to_phenotype.txt", [NEW, ROWS[0]])
    with pytest.raises(UserError, match=r"nothing of .* is left \(not below HP:0000118: 1\)"):
        read(folder)


def test_the_real_excerpt_of_diseases():
    folder = excerpt("hpo")
    statements = read(folder)
    with (folder / "genes_to_disease.txt").open() as file:
        plain = list(csv.DictReader(file, delimiter="\t"))
    assert statements.rows_read == len(statements.terms) == len(plain) == 59
    assert statements.terms["category"].value_counts().to_dict() == {"MENDELIAN": 36, "UNKNOWN": 20, "POLYGENIC": 3}
    assert list(statements.terms["entrez_id"]) == [row["ncbi_gene_id"].split(":")[1] for row in plain]
    assert statements.terms["term_id"].str.startswith("OMIM:").sum() == 39
    assert any("hierarchy of hp.obo is broken" in note for note in statements.notes)


def test_phenotypes_over_the_real_ontology_of_2014(tmp_path):
    (tmp_path / "hp.obo").symlink_to(excerpt("hpo") / "whole_2014" / "hp.obo")
    write_rows(tmp_path / "genes_to_phenotype.txt", [NEW, *ROWS])
    statements = read(tmp_path)
    assert adds_up(statements)
    assert statements.version == "2014-03-18"
    # HP:0000999 and HP:0000888 are ids of that release with other meanings; inheritance is none of the phenotypes.
    category = statements.terms.set_index("term_id")["category"]
    assert category["HP:0000007"] == "mode of inheritance"
    assert set(category["HP:0000252"]) == {"phenotype"}
    counts = pd.Series(statements.says_little).value_counts()
    assert counts.drop("too general").sum() + 10_286 + 2 == len(read_ontology(tmp_path / "hp.obo", "HP").terms)
    assert statements.parents["term_id"].nunique() > 10_000
    assert not statements.parents["parent_id"].isin(["HP:0000118", "HP:0000001"]).any()
