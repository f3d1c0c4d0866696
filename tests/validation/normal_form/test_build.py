"""Statements become the files of the normal form, all or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_genomics.errors import UserError
from sae_genomics.hashes import hash_file
from sae_genomics.validation.normal_form import build as building
from sae_genomics.validation.normal_form.build import SourceFile, build, built
from sae_genomics.validation.normal_form.catalogue import Entry
from sae_genomics.validation.normal_form.hgnc import Genes, make_genes, no_genes, read_hgnc
from sae_genomics.validation.normal_form.schema import (
    EDGES_FILE,
    LEFT_OUT_FILE,
    PARENTS_FILE,
    SOURCE_FILE,
    TERMS_FILE,
    read_table,
)
from sae_genomics.validation.normal_form.statements import Statements
from tests.validation.normal_form.hgnc_file import filler, gene, write_hgnc

ENTRY = Entry(
    title="Base",
    version="7",
    licence="CC0",
    citation="Me 2026",
    contains=["hpo"],
    files=[{"name": "a", "url": "https://x"}],
)
FILE = SourceFile("a", "https://x", 10, "ab", "2026-09-04")


@pytest.fixture(scope="module")
def genes(tmp_path_factory) -> Genes:
    some = [
        gene(1, "ONE", prev_symbol="OLD"),
        gene(2, "TWO", alias_symbol="SAME"),
        gene(3, "THREE", alias_symbol="SAME"),
    ]
    return make_genes(read_hgnc(write_hgnc(tmp_path_factory.mktemp("hgnc"), [*some, *filler(10_000)])), "its hash")


def terms(*rows: tuple) -> pd.DataFrame:
    columns = ["term_id", "gene_symbol", "score", "evidence", "category", "negative"]
    return pd.DataFrame(rows, columns=columns).assign(term_name="A name")


def read(folder: Path, name: str) -> list[tuple]:
    return [tuple(row.values()) for row in read_table(folder / name).to_pylist()]


def test_terms_and_parents_and_what_is_known_of_them(genes, tmp_path):
    rows = [
        ("T:1", "ONE", 0.2, "weak", "genetic", False),
        ("T:1", "OLD", 0.9, "strong", "genetic", False),  # the same gene by its old symbol
        ("T:1", "ONE", np.nan, "none", "genetic", False),
        ("T:1", "ONE", 0.1, "other", "clinical", False),
        ("T:1", "ONE", 0.5, "refuted", "genetic", True),
        ("T:2", "TWO", np.nan, "", "", False),
        ("T:2", "SAME", 1.0, "", "", False),
        ("T:2", "NONSENSE", 1.0, "", "", False),
    ]
    statements = Statements(
        terms=terms(*rows), parents=pd.DataFrame({"term_id": ["T:1", "T:1"], "parent_id": ["T:0", "T:0"]}), rows_read=10
    )
    statements.drop("no gene", 2)
    facts = build("base", statements, ENTRY, genes, [FILE], tmp_path / "base")
    assert read(tmp_path / "base", TERMS_FILE) == [
        ("base", "T:1", "A name", "ONE", "ENSG00000000001", "HGNC:1", 0.9, "strong", "genetic", False),
        ("base", "T:1", "A name", "ONE", "ENSG00000000001", "HGNC:1", 0.1, "other", "clinical", False),
        ("base", "T:1", "A name", "ONE", "ENSG00000000001", "HGNC:1", 0.5, "refuted", "genetic", True),
        ("base", "T:2", "A name", "TWO", "ENSG00000000002", "HGNC:2", None, "", "", False),
    ]
    assert read(tmp_path / "base", PARENTS_FILE) == [("base", "T:1", "T:0", "")]
    assert not (tmp_path / "base" / EDGES_FILE).exists()
    counts = facts["counts"]
    assert counts["dropped"] == {"no gene": 2, "ambiguous gene": 1, "unmapped gene": 1, "duplicate": 2}
    assert counts["rows_read"] == 10 == counts["kept"] + sum(counts["dropped"].values())
    assert (counts["negative"], counts["terms"], counts["genes"], counts["parents"], counts["edges"]) == (1, 2, 2, 1, 0)
    assert (counts["unmapped_genes"], counts["unmapped_share"], counts["ambiguous_genes"]) == (1, 0.2, 1)
    known = built(tmp_path / "base")
    assert known == facts
    assert (known["version"], known["licence"], known["citation"], known["contains"]) == (
        "7",
        "CC0",
        "Me 2026",
        ["hpo"],
    )
    assert known["files"] == [{"name": "a", "url": "https://x", "bytes": 10, "sha256": "ab", "modified": "2026-09-04"}]
    assert known["gene_table"] == {"genes": 10_003, "sha256": "its hash"}


def test_names_of_parents_and_terms_that_say_little(genes, tmp_path):
    parents = pd.DataFrame(
        [("T:1", "T:0", "Top"), ("T:2", "T:1", ""), ("T:2", "T:1", ""), ("T:3", "T:4", ""), ("T:4", "T:3", "")],
        columns=["term_id", "parent_id", "parent_name"],
    )
    little = {"T:0": "too general", "T:2": "mode of inheritance", "T:9": "not in use"}

    def statements(**changed) -> Statements:
        rows = terms(("T:1", "ONE", 1.0, "", "", False), ("T:2", "TWO", 1.0, "", "", False))
        return Statements(**{"terms": rows, "parents": parents, "says_little": little, "rows_read": 2, **changed})

    facts = build("base", statements(), ENTRY, genes, [FILE], tmp_path / "base")
    # A name that the source does not give is that of the statements; two terms above each other are no hierarchy.
    assert read(tmp_path / "base", PARENTS_FILE) == [("base", "T:1", "T:0", "Top"), ("base", "T:2", "T:1", "A name")]
    assert any("2 parents that close a circle" in note for note in facts["notes"])
    assert read(tmp_path / "base", LEFT_OUT_FILE) == [
        ("base", "T:0", "Top", "too general"),
        ("base", "T:2", "A name", "mode of inheritance"),
    ]
    assert facts["counts"]["left_out_terms"] == {"too general": 1, "mode of inheritance": 1}
    assert facts["counts"]["statements"] == 2  # they are marked, and kept

    # Runs know a database by the content of its terms: it changes with all that decides which gene sets come out.
    content = {hash_file(tmp_path / "base" / TERMS_FILE)}
    for changed in ({}, {"parents": parents[:1]}, {"says_little": {}}, {"propagated": True}):
        build("base", statements(**changed), ENTRY, genes, [FILE], tmp_path / "base")
        content.add(hash_file(tmp_path / "base" / TERMS_FILE))
    assert len(content) == 4
    build("base", statements(says_little={}), ENTRY, genes, [FILE], tmp_path / "base")
    assert not (tmp_path / "base" / LEFT_OUT_FILE).exists()


def edges(*rows: tuple, prefix: str = "gene_symbol") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[f"source_{prefix}", f"target_{prefix}", "score", "category", "sign"]).assign(
        evidence="E"
    )


def test_a_pair_of_a_network_stands_once_whichever_comes_first(genes, tmp_path):
    rows = [
        ("TWO", "ONE", 0.7, "physical", 0),
        ("ONE", "TWO", 0.9, "physical", 0),
        ("OLD", "TWO", 0.3, "all", 0),
        ("THREE", "TWO", 0.5, "physical", 0),
        ("ONE", "OLD", 0.8, "physical", 0),  # a gene with itself
        ("ONE", "UNKNOWN", 0.8, "physical", 0),
    ]
    facts = build("base", Statements(edges=edges(*rows), rows_read=6), ENTRY, genes, [FILE], tmp_path / "base")
    table = read_table(tmp_path / "base" / EDGES_FILE).to_pandas()
    found = table[
        ["source_gene_symbol", "source_ensembl_id", "target_gene_symbol", "target_hgnc_id", "score", "category"]
    ]
    assert found.values.tolist() == [
        ["ONE", "ENSG00000000001", "TWO", "HGNC:2", 0.9, "physical"],
        ["ONE", "ENSG00000000001", "TWO", "HGNC:2", 0.3, "all"],
        ["TWO", "ENSG00000000002", "THREE", "HGNC:3", 0.5, "physical"],
    ]
    assert facts["counts"]["dropped"] == {"unmapped gene": 1, "a gene with itself": 1, "duplicate": 1}
    assert facts["counts"]["edges"] == 3
    assert read(tmp_path / "base", TERMS_FILE) == []


def test_a_regulon_keeps_its_directions_and_signs(genes, tmp_path):
    rows = [("ONE", "TWO", 1.0, "", 1), ("TWO", "ONE", 1.0, "", -1), ("ONE", "ONE", 1.0, "", 1), ("ONE", "TWO", 2.0, "", -1), ("ONE", "TWO", 3.0, "", 1)]  # fmt: skip
    build("base", Statements(edges=edges(*rows), directed=True, rows_read=5), ENTRY, genes, [FILE], tmp_path / "base")
    table = read_table(tmp_path / "base" / EDGES_FILE).to_pandas()
    assert table[["source_gene_symbol", "target_gene_symbol", "score", "sign"]].values.tolist() == [
        ["TWO", "ONE", 1.0, -1], ["ONE", "ONE", 1.0, 1], ["ONE", "TWO", 2.0, -1], ["ONE", "TWO", 3.0, 1],
    ]  # fmt: skip


def test_without_a_table_genes_that_are_known_by_symbol_only_stay_apart(tmp_path, capsys):
    rows = [("T:1", "ONE", 1.0, "", "", False), ("T:1", "OLD", 1.0, "", "", False)]
    facts = build("base", Statements(terms=terms(*rows), rows_read=2), ENTRY, no_genes(), [FILE], tmp_path / "base")
    assert [row[3:6] for row in read(tmp_path / "base", TERMS_FILE)] == [("ONE", None, None), ("OLD", None, None)]
    assert facts["counts"]["genes"] == 2
    assert capsys.readouterr().err.count("the HGNC table is not there: 2 of 2 genes (100.0%)") == 1


def test_a_wrong_prefix_writes_nothing_and_leaves_what_was_there(genes, tmp_path):
    good = Statements(terms=terms(("T:1", "ONE", 1.0, "", "", False)), rows_read=1)
    build("base", good, ENTRY, genes, [FILE], tmp_path / "base")
    before = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    bad = terms(("T:1", "", 1.0, "", "", False)).assign(entrez_id="hsa:1001")
    with pytest.raises(
        UserError, match=r"base: the HGNC table does not know 1 of 1 genes .* for example hsa:1001; more than 50%"
    ):
        build("base", Statements(terms=bad, rows_read=1), ENTRY, genes, [FILE], tmp_path / "base")
    assert {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()} == before
    tolerant = ENTRY.model_copy(update={"unmapped_limit": 1.0})
    facts = build("base", Statements(terms=bad, rows_read=1), tolerant, genes, [FILE], tmp_path / "base")
    assert "none of the 1 rows is kept: 1 unmapped gene" in facts["notes"][-1]


def test_a_source_appears_whole_or_not_at_all(genes, tmp_path, monkeypatch):
    """A build that is stopped between two renames leaves no source.json, so that nothing takes the folder for a source."""
    folder = tmp_path / "base"
    both = {"terms": terms(("T:1", "ONE", 1.0, "", "", False)), "rows_read": 2}
    network = edges(("ONE", "TWO", 1.0, "", 0))
    build("base", Statements(**both, edges=network), ENTRY, genes, [FILE], folder)
    plain, left = building.put_in_place, iter(["terms.parquet"])

    def stopped(temporary: Path, path: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        plain(temporary, path)

    monkeypatch.setattr(building, "put_in_place", stopped)
    with pytest.raises(KeyboardInterrupt):
        build("base", Statements(**both, edges=network), ENTRY, genes, [FILE], folder)
    assert built(folder) is None
    monkeypatch.undo()
    build("base", Statements(**both), ENTRY, genes, [FILE], folder)
    assert sorted(path.name for path in folder.iterdir()) == [SOURCE_FILE, TERMS_FILE]  # no edges of the earlier build
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
