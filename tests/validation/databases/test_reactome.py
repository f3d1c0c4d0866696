"""Reactome: its reversed GMT, zipped or not, all species in the relations, and what must not be propagated."""

from __future__ import annotations

import zipfile

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.reactome import read
from tests.validation.databases.true_files import adds_up, write_rows
from tests.validation.excerpts import excerpt

SETS = [
    ("2-LTR circle formation", "R-HSA-164843", "BANF1", "HMGA1", "gag-pol"),
    ("Signaling, one", "R-HSA-1", "TP53", "MYC", "TP53", ""),
    ("Signaling, one", "R-HSA-2", "TP53"),
    ("Of cattle", "R-BTA-3", "TP53"),
]
PAIRS = [("R-BTA-109581", "R-BTA-109606"), ("R-HSA-1", "R-HSA-2"), ("R-HSA-9", "R-HSA-2"), ("R-HSA-1", "R-HSA-2")]


def test_the_first_column_is_the_name_and_the_second_the_id(tmp_path):
    write_rows(tmp_path / "ReactomePathways.gmt", SETS)
    statements = read(tmp_path)
    assert statements.rows_read == 8
    assert adds_up(statements)
    assert statements.dropped == {"not a human pathway": 1, "duplicate": 1}
    assert statements.terms[["term_id", "term_name", "gene_symbol"]].to_numpy().tolist() == [
        ["R-HSA-164843", "2-LTR circle formation", "BANF1"],
        ["R-HSA-164843", "2-LTR circle formation", "HMGA1"],
        ["R-HSA-164843", "2-LTR circle formation", "gag-pol"],
        ["R-HSA-1", "Signaling, one", "TP53"],
        ["R-HSA-1", "Signaling, one", "MYC"],
        ["R-HSA-2", "Signaling, one", "TP53"],
    ]
    assert statements.propagated
    assert any("must not be propagated again" in note for note in statements.notes)
    assert statements.parents is None
    assert any("no hierarchy" in note for note in statements.notes)


def test_the_zip_and_the_relations_of_human_pathways(tmp_path):
    plain = write_rows(tmp_path / "sets", SETS)
    with zipfile.ZipFile(tmp_path / "ReactomePathways.gmt.zip", "w") as archive:
        archive.write(plain, "ReactomePathways.gmt")
    write_rows(tmp_path / "ReactomePathwaysRelation.txt", PAIRS)
    statements = read(tmp_path)
    assert adds_up(statements)
    assert statements.parents.to_dict("records") == [
        {"term_id": "R-HSA-2", "parent_id": "R-HSA-1"},
        {"term_id": "R-HSA-2", "parent_id": "R-HSA-9"},
    ]


def test_a_damaged_zip_is_refused(tmp_path):
    plain = write_rows(tmp_path / "sets", SETS)
    path = tmp_path / "ReactomePathways.gmt.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(plain, "ReactomePathways.gmt")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="damaged or cut off"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("R-HSA-1\tSignaling\tTP53\n", "second column holds no ids like R-HSA-1234 but 'Signaling'"),
        ("Signaling\tR-HSA-1\tTP53\nSignal", "line 2: not a gene set, or cut off"),
        ("<html></html>", "web page"),
        ("\n\n", "empty"),
        ("#a comment\n", "no gene sets"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "ReactomePathways.gmt").write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_relations_of_other_species_alone_are_refused(tmp_path):
    write_rows(tmp_path / "ReactomePathways.gmt", SETS)
    write_rows(tmp_path / "ReactomePathwaysRelation.txt", PAIRS[:1])
    with pytest.raises(UserError, match="has no pair of R-HSA- ids"):
        read(tmp_path)


def test_a_last_line_without_an_end_is_told(tmp_path):
    (tmp_path / "ReactomePathways.gmt").write_text("Signaling\tR-HSA-1\tTP53\tMY")
    assert "ReactomePathways.gmt ends within a line: it may be cut off" in read(tmp_path).notes


def test_the_real_collection():
    folder = excerpt("reactome")
    statements = read(folder)
    sets = {}
    for line in (folder / "ReactomePathways.gmt").read_text().splitlines():
        name, pathway, *genes = line.split("\t")
        sets[pathway] = (name, {gene for gene in genes if gene})
    assert len(sets) == 2_444
    assert adds_up(statements)
    assert statements.terms["term_id"].nunique() == len(sets)
    sizes = statements.terms.groupby("term_id").size()
    assert {pathway: len(genes) for pathway, (_, genes) in sets.items()} == sizes.to_dict()
    assert (sizes.min(), sizes.max()) == (1, 2_829)


def _stated(gene: str, pathway: str, evidence: str = "TAS", species: str = "Homo sapiens") -> tuple[str, ...]:
    return (gene, pathway, f"https://reactome.org/PathwayBrowser/#/{pathway}", f"name of {pathway}", evidence, species)


@pytest.mark.parametrize(
    ("name", "column", "gene", "propagated"),
    [
        ("Ensembl2Reactome.txt", "ensembl_id", "ENSG00000000419", False),
        ("Ensembl2Reactome_All_Levels.txt", "ensembl_id", "ENSG00000000419", True),
        ("NCBI2Reactome.txt", "entrez_id", "8813", False),
        ("UniProt2Reactome_All_Levels.txt", "uniprot_id", "O60762", True),
    ],
)
def test_tables_of_genes_in_place_of_the_sets(tmp_path, name, column, gene, propagated):
    rows = [
        _stated(gene, "R-HSA-162699", "IEA"), _stated(gene, "R-HSA-162699"), _stated(gene, "R-HSA-1"),
        _stated("ENSDART00000193986", "R-DRE-5653656", "IEA", "Danio rerio"), _stated("ENSP00000371582", "R-HSA-1"),
    ]  # fmt: skip
    write_rows(tmp_path / name, rows)
    write_rows(tmp_path / "ReactomePathwaysRelation.txt", PAIRS)
    statements = read(tmp_path)
    assert adds_up(statements)
    assert statements.propagated is propagated
    assert len(statements.parents) == 2
    proteins = [] if column == "ensembl_id" else [["R-HSA-1", "name of R-HSA-1", "ENSP00000371582", "TAS"]]
    assert statements.terms[["term_id", "term_name", column, "evidence"]].to_numpy().tolist() == [
        ["R-HSA-162699", "name of R-HSA-162699", gene, "TAS"],  # a curator's statement before the electronic one
        ["R-HSA-1", "name of R-HSA-1", gene, "TAS"],
        *proteins,
    ]
    assert statements.dropped["not a human pathway"] == statements.dropped["duplicate"] == 1


def test_another_table_is_refused(tmp_path):
    write_rows(tmp_path / "NCBI2Reactome.txt", [("1", "hsa00010", "", "", "", "")])
    with pytest.raises(UserError, match="not a table of Reactome"):
        read(tmp_path)
