"""Gene identity by HGNC's table."""

from __future__ import annotations

import csv

import pandas as pd
import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.hgnc import read
from sae_genomics.validation.normal_form.hgnc import (
    Genes,
    find_table,
    identify,
    make_genes,
    no_genes,
    read_hgnc,
    refuse_unmapped,
)
from tests.validation.excerpts import excerpts, needs
from tests.validation.normal_form.hgnc_file import COLUMNS, OLD_COLUMNS, filler, gene, write_hgnc

EXCERPT = excerpts() / "hgnc"
SOME = [
    gene(1, "ONE", alias_symbol="UNO|EINS|SHARED|TWO", prev_symbol="OLD1|WAS"),
    gene(2, "TWO", alias_symbol="SHARED|OLD1", prev_symbol="WAS", uniprot_ids="P77777|P88888"),
    gene(3, "C3orf9", alias_symbol="x", ensembl_gene_id="", uniprot_ids="P77777"),
    gene(4, "THREE", prev_symbol="UNO", entrez_id="", gene_group="Group A|Group B", gene_group_id="7|81"),
    gene(5, "GONE", status="Entry Withdrawn"),
    gene(6, "SEPTIN6", prev_symbol="SEPT6", gene_group="Group A", gene_group_id="7"),
]


@pytest.fixture(scope="module")
def genes(tmp_path_factory) -> Genes:
    return make_genes(read_hgnc(write_hgnc(tmp_path_factory.mktemp("hgnc"), [*SOME, *filler(10_000)])))


def look_up(genes: Genes, **names: str) -> tuple:
    found = identify(pd.DataFrame({name: [value] for name, value in names.items()}), genes)
    row = found.genes.iloc[0] if found.gene[0] == 0 else dict.fromkeys(found.genes)
    state = "kept" if found.gene[0] == 0 else "ambiguous" if found.is_ambiguous[0] else "unmapped"
    return state, row["hgnc_id"], row["ensembl_id"], row["gene_symbol"]


ONE = ("kept", "HGNC:1", "ENSG00000000001", "ONE")
TWO = ("kept", "HGNC:2", "ENSG00000000002", "TWO")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"hgnc_id": "HGNC:1", "gene_symbol": "TWO"}, ONE),
        ({"hgnc_id": "1"}, ONE),
        ({"ensembl_id": "ENSG00000000001.14", "entrez_id": "1002"}, ONE),
        ({"entrez_id": "1001", "uniprot_id": "P88888"}, ONE),
        ({"uniprot_id": "P88888", "gene_symbol": "ONE"}, TWO),
        ({"uniprot_id": "P77777", "gene_symbol": "TWO"}, TWO),  # two genes have it: the symbol decides
        ({"hgnc_id": "HGNC:5", "gene_symbol": "ONE"}, ONE),  # a withdrawn id says nothing
        ({"hgnc_id": "HGNC:99", "ensembl_id": "ENSG00000000002"}, TWO),
        ({"gene_symbol": "TWO"}, TWO),  # an alias of ONE too: the current symbol counts
        ({"gene_symbol": "UNO"}, ("kept", "HGNC:4", "ENSG00000000004", "THREE")),  # previous before alias
        ({"gene_symbol": "OLD1"}, ONE),
        ({"gene_symbol": "EINS"}, ONE),
        ({"gene_symbol": "eins"}, ONE),
        ({"gene_symbol": " C3ORF9 "}, ("kept", "HGNC:3", None, "C3orf9")),
        ({"gene_symbol": "X"}, ("kept", "HGNC:3", None, "C3orf9")),
        ({"gene_symbol": "SEPT6"}, ("kept", "HGNC:6", "ENSG00000000006", "SEPTIN6")),
        (
            {"hgnc_id": "HGNC:3", "ensembl_id": "ENSG00000099999.2"},
            ("kept", "HGNC:3", "ENSG00000099999", "C3orf9"),
        ),  # HGNC has none
    ],
)
def test_ids_come_before_symbols_and_current_before_previous_before_alias(genes, names, expected):
    assert look_up(genes, **names) == expected


@pytest.mark.parametrize(
    ("names", "state"),
    [
        ({"gene_symbol": "SHARED"}, "ambiguous"),
        ({"gene_symbol": "WAS"}, "ambiguous"),
        ({"gene_symbol": "was"}, "ambiguous"),
        ({"uniprot_id": "P77777", "gene_symbol": ""}, "ambiguous"),
        ({"gene_symbol": "GONE"}, "unmapped"),
        ({"gene_symbol": "NA"}, "unmapped"),
        ({"entrez_id": "NCBIGene:1001"}, "unmapped"),
        ({"hgnc_id": "", "gene_symbol": ""}, "unmapped"),
    ],
)
def test_nothing_is_guessed(genes, names, state):
    assert look_up(genes, **names)[0] == state


def test_counts_are_of_distinct_genes(genes):
    names = pd.DataFrame({
        "entrez_id": ["1001", "1001", "9", "9", "", None, "1002"],
        "gene_symbol": ["ONE", "ONE", "NEW", "NEW", "SHARED", None, "TWO"],
    })  # fmt: skip
    found = identify(names, genes)
    assert (found.n_genes, found.n_unmapped, found.n_ambiguous, found.examples) == (4, 1, 1, ["9"])
    assert found.gene.tolist() == [0, 0, -1, -1, -1, -1, 1]
    assert found.genes["gene_symbol"].tolist() == ["ONE", "TWO"]


def test_a_prefix_that_is_read_wrong_is_an_error_that_shows_it(genes):
    found = identify(pd.DataFrame({"entrez_id": [f"hsa:{i}" for i in range(1001, 1004)] + ["1001"]}), genes)
    with pytest.raises(
        UserError, match=r"kegg: the HGNC table does not know 3 of 4 genes \(75.0%\), for example hsa:1001"
    ):
        refuse_unmapped("kegg", found, genes, 0.5)
    assert refuse_unmapped("kegg", found, genes, 0.8).endswith("they are left out")


def test_beside_an_excerpt_genes_keep_their_own_names(tmp_path):
    excerpt = make_genes(read_hgnc(write_hgnc(tmp_path, SOME)))
    for genes in (excerpt, no_genes()):
        own = look_up(genes, entrez_id="5", gene_symbol="NEW", ensembl_id="ENSG00000012345.3")
        assert own == ("kept", None, "ENSG00000012345", "NEW")
        assert look_up(genes, gene_symbol="NEW", ensembl_id="LRG_1") == ("kept", None, None, "NEW")
        assert look_up(genes, entrez_id="5")[0] == "unmapped"
        found = identify(pd.DataFrame({"gene_symbol": ["NEW"]}), genes)
        assert "1 of 1 genes (100.0%) keep the symbol" in refuse_unmapped("x", found, genes, 0.0)
    assert look_up(excerpt, gene_symbol="EINS") == ONE
    assert look_up(excerpt, gene_symbol="SHARED")[0] == "ambiguous"


@pytest.mark.parametrize("columns", [COLUMNS, OLD_COLUMNS], ids=["53 columns", "52 columns"])
def test_both_layouts_and_groups_of_genes(tmp_path, columns):
    assert len(columns) == (53 if columns is COLUMNS else 52)
    path = write_hgnc(tmp_path, SOME, columns)
    table = read_hgnc(path).set_index("hgnc_id")
    assert len(table) == 6
    assert table.loc["HGNC:1", "alias_symbol"] == "UNO|EINS|SHARED|TWO"
    assert table.loc["HGNC:1", "entrez_id"] == "1001"
    assert (table.loc["HGNC:5", "status"], table.loc["HGNC:5", "entrez_id"]) == ("Entry Withdrawn", "")
    statements = read(tmp_path)
    assert statements.terms.values.tolist() == [
        ["HGNC.GROUP:7", "Group A", "HGNC:4", "THREE"],
        ["HGNC.GROUP:81", "Group B", "HGNC:4", "THREE"],
        ["HGNC.GROUP:7", "Group A", "HGNC:6", "SEPTIN6"],
    ]
    assert statements.dropped == {"withdrawn": 1, "in no gene group": 3}
    assert (statements.rows_read, statements.split) == (6, 1)
    assert statements.rows_read + statements.split == len(statements.terms) + sum(statements.dropped.values())


def test_what_is_no_table_of_hgnc(tmp_path):
    with pytest.raises(UserError, match="has a header and no genes"):
        read_hgnc(write_hgnc(tmp_path, []))
    with pytest.raises(UserError, match="'A1BG' is no HGNC id"):
        read_hgnc(write_hgnc(tmp_path, [gene(1, "A1BG", hgnc_id="A1BG")]))
    with pytest.raises(UserError, match="every entry of the table is withdrawn"):
        make_genes(read_hgnc(write_hgnc(tmp_path, [gene(1, "A", status="Entry Withdrawn")])))
    with pytest.raises(UserError, match="no column 'uniprot_ids'"):
        read_hgnc(write_hgnc(tmp_path, SOME, [name for name in COLUMNS if name != "uniprot_ids"]))
    monthly = tmp_path / "monthly"
    for day in ("2026-08-07", "2026-09-04"):
        write_hgnc(monthly, SOME, name=f"hgnc_complete_set_{day}.tsv")
    assert find_table(monthly).name == "hgnc_complete_set_2026-09-04.tsv"


@needs(EXCERPT)
def test_the_real_excerpt():
    with (EXCERPT / "hgnc_complete_set.txt").open(newline="") as file:
        plain = list(csv.DictReader(file, delimiter="\t"))
    table = read_hgnc(find_table(EXCERPT))
    assert sorted(table["hgnc_id"]) == sorted(row["hgnc_id"] for row in plain)
    genes = make_genes(table)
    assert len(genes.table) == sum(row["status"] == "Approved" for row in plain) == 5
    aliases = [(alias, row["hgnc_id"]) for row in plain for alias in (row["alias_symbol"] or "").split("|") if alias]
    assert len(aliases) == 5
    for alias, hgnc_id in aliases:
        assert look_up(genes, gene_symbol=alias)[1] == hgnc_id


@pytest.mark.parametrize("genes", [no_genes(), "table"], ids=["no table", "table"])
def test_genes_of_the_mouse_are_refused(tmp_path, genes):
    """In capitals most of them would be human ones."""
    if genes == "table":
        genes = make_genes(pd.DataFrame({
            "hgnc_id": ["HGNC:1", "HGNC:2"], "symbol": ["TRP53", "C1orf112"], "status": "Approved", "alias_symbol": "", "prev_symbol": "",
            "entrez_id": "", "ensembl_gene_id": "", "uniprot_ids": "",
        }))  # fmt: skip
    found = identify(pd.DataFrame({"gene_symbol": ["Trp53", "Myc", "0610007P14Rik", "H2-Ab1", "C1orf112"]}), genes)
    with pytest.raises(UserError, match="80% of the genes are written as those of the mouse are, for example Trp53"):
        refuse_unmapped("trrust", found, genes, 0.5)
    human = identify(
        pd.DataFrame({"gene_symbol": ["TP53", "C1orf112", "Trp53"], "entrez_id": ["", "", "22059"]}), genes
    )
    refuse_unmapped("trrust", human, genes, 1.0)
    assert human.like_mouse == 0.0
