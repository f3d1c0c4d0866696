"""MSigDB and other GMT files: the collection from the file's name, both styles of address, ids, and what repeats other sources."""

from __future__ import annotations

import gzip
import json

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.msigdb import read
from tests.validation.databases.true_files import adds_up, write_rows
from tests.validation.excerpts import excerpt

OLD = "http://www.broadinstitute.org/gsea/msigdb/cards/{}"
NEW = "https://www.gsea-msigdb.org/gsea/msigdb/human/geneset/{}.html"


def gene_set(name: str, *genes: str, url: str = NEW) -> tuple[str, ...]:
    return (name, url.format(name), *genes)


def test_each_file_is_a_collection(tmp_path):
    write_rows(tmp_path / "h.all.v7.0.symbols.gmt", [gene_set("HALLMARK_A", "TP53", "MYC", "MYC", url=OLD)])
    write_rows(tmp_path / "c8.all.v2025.1.Hs.symbols.gmt", [gene_set("CELL_B", "CD14")])
    write_rows(tmp_path / "c2.cp.kegg_legacy.v2025.1.Hs.entrez.gmt", [gene_set("KEGG_C", "7157", "4609")])
    write_rows(tmp_path / "my sets.gmt", [("mine", "", "NA,1.0", "TP53,0.5")], end="\r\n")
    statements = read(tmp_path)
    assert statements.rows_read == 8
    assert adds_up(statements)
    assert statements.dropped == {"duplicate": 1}
    assert statements.version == "2025.1.Hs, 7.0"
    rows = {
        (row.category, row.term_id, row.gene_symbol, row.entrez_id) for row in statements.terms.itertuples(index=False)
    }
    assert rows == {
        ("h.all", "HALLMARK_A", "TP53", ""), ("h.all", "HALLMARK_A", "MYC", ""), ("c8.all", "CELL_B", "CD14", ""),
        ("c2.cp.kegg_legacy", "KEGG_C", "", "7157"), ("c2.cp.kegg_legacy", "KEGG_C", "", "4609"),
        ("my sets", "mine", "NA", ""), ("my sets", "mine", "TP53", ""),
    }  # fmt: skip
    assert any(note.startswith("c2.cp.kegg_legacy repeat Reactome, KEGG") for note in statements.notes)
    assert any(note.startswith("c8.all come at least in part from expression") for note in statements.notes)
    assert statements.parents is None


def test_hallmark_alone_repeats_nothing(tmp_path):
    write_rows(tmp_path / "h.all.v2025.1.Hs.symbols.gmt", [gene_set("HALLMARK_A", "TP53")])
    assert read(tmp_path).notes == []


def test_a_name_in_two_collections_gets_the_collection_before_it(tmp_path):
    write_rows(tmp_path / "one.gmt", [("A", "", "TP53"), ("B", "", "MYC")])
    write_rows(tmp_path / "two.gmt", [("A", "", "CD14")])
    statements = read(tmp_path)
    assert list(statements.terms["term_id"]) == ["one:A", "B", "two:A"]
    assert any("1 set names stand in more than one collection" in note for note in statements.notes)


def test_ids_are_read_where_symbols_are_there_too(tmp_path):
    write_rows(tmp_path / "h.all.v7.0.symbols.gmt", [gene_set("HALLMARK_A", "TP53")])
    write_rows(tmp_path / "h.all.v7.0.entrez.gmt", [gene_set("HALLMARK_A", "7157")])
    statements = read(tmp_path)
    assert list(statements.terms["entrez_id"]) == ["7157"]
    assert statements.notes == ["h.all.v7.0.symbols.gmt was not read: the same collection is there with NCBI gene ids"]


def test_sets_of_reactome_are_known_by_their_id_and_files_may_be_packed(tmp_path):
    (tmp_path / "reactome.gmt.gz").write_bytes(gzip.compress(b"A pathway\tR-HSA-1\tTP53\n"))
    terms = read(tmp_path).terms
    assert terms[["term_id", "term_name", "category"]].to_numpy().tolist() == [["R-HSA-1", "A pathway", "reactome"]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mh.all.v2025.1.Mm.symbols.gmt", "A\tx\tTrp53\n", "holds genes of the mouse"),
        ("h.all.v7.0.entrez.gmt", "A\tx\tTP53\n", "holds 'TP53' where an NCBI gene id is expected"),
        ("a.gmt", "A\tx\tTP53\nB\tx\n", "line 2: not a gene set"),
        ("a.gmt", "\tx\tTP53\n", "line 1: not a gene set"),
        ("a.gmt", "<!DOCTYPE html>", "web page"),
        ("a.txt", "A\tx\tTP53\n", r"no \*\.gmt or \*\.json file is in"),
    ],
)
def test_other_files_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_the_real_hallmark_collection():
    folder = excerpt("msigdb")
    statements = read(folder)
    sets = [line.split("\t") for line in (folder / "h.all.v7.0.symbols.gmt").read_text().splitlines()]
    assert len(sets) == 50
    assert statements.rows_read == len(statements.terms) == sum(len(cells) - 2 for cells in sets)
    assert list(dict.fromkeys(statements.terms["term_id"])) == [cells[0] for cells in sets]
    assert set(statements.terms["category"]) == {"h.all"}
    assert statements.version == "7.0"


def test_json_says_the_collection_of_each_set(tmp_path):
    sets = {
        "HALLMARK_A": {"systematicName": "M5890", "collection": "H", "geneSymbols": ["TP53", "MYC"], "filteredBySimilarity": []},
        "REACTOME_B": {"systematicName": "M1", "collection": "C2:CP:REACTOME", "geneSymbols": ["NA"], "exactSource": "R-HSA-1"},
    }  # fmt: skip
    (tmp_path / "msigdb.v2025.1.Hs.json").write_text(json.dumps(sets))
    statements = read(tmp_path)
    assert adds_up(statements)
    assert statements.version == "2025.1.Hs"
    assert statements.terms[["category", "term_id", "gene_symbol"]].to_numpy().tolist() == [
        ["h", "HALLMARK_A", "TP53"], ["h", "HALLMARK_A", "MYC"], ["c2.cp.reactome", "REACTOME_B", "NA"],
    ]  # fmt: skip
    assert any(note.startswith("c2.cp.reactome repeat Reactome") for note in statements.notes)


def test_a_collection_is_read_from_one_file(tmp_path):
    write_rows(tmp_path / "h.all.v2025.1.Hs.symbols.gmt", [gene_set("HALLMARK_A", "TP53")])
    (tmp_path / "h.all.v2025.1.Hs.json").write_text('{"HALLMARK_A": {"collection": "H", "geneSymbols": ["TP53"]}}')
    statements = read(tmp_path)
    assert len(statements.terms) == 1
    assert "h.all.v2025.1.Hs.json was not read: the same collection is there as GMT" in statements.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"A": {"geneSymbols": ["TP53"]', "damaged or cut off"),
        ("[]", "holds no gene sets"),
        ('{"A": {"genes": ["TP53"]}}', "no list geneSymbols"),
        ('{"A": {"systematicName": "MM1", "geneSymbols": ["Trp53"]}}', "genes of the mouse"),
    ],
)
def test_other_json_is_refused(tmp_path, text, message):
    (tmp_path / "h.all.v2025.1.Hs.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path)
