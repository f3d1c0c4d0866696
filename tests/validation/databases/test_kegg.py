"""KEGG: ids with and without `path:`, either order of the links, overview maps, and the release."""

from __future__ import annotations

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.kegg import read
from tests.validation.databases.true_files import adds_up, write_rows

NAMES = [
    ("hsa01100", "Metabolic pathways - Homo sapiens (human)"),
    ("hsa01230", "Biosynthesis of amino acids - Homo sapiens (human)"),
    ("hsa00010", "Glycolysis / Gluconeogenesis - Homo sapiens (human)"),
    ("hsa04110", "Cell cycle - Homo sapiens (human)"),
]
LINKS = [
    ("path:hsa00010", "hsa:10327"), ("path:hsa00010", "hsa:124"), ("path:hsa00010", "hsa:124"), ("path:hsa01100", "hsa:10327"),
    ("path:hsa01230", "hsa:226"), ("path:hsa04110", "hsa:595"), ("path:hsa05555", "hsa:595"),
]  # fmt: skip


def bare(rows: list) -> list:
    return [tuple(cell.removeprefix("path:") for cell in row) for row in rows]


@pytest.mark.parametrize("names_with", ["", "path:"])
@pytest.mark.parametrize("links_with", ["", "path:"])
@pytest.mark.parametrize("turned", [False, True])
def test_either_form_of_the_ids_and_either_order_gives_the_same(tmp_path, names_with, links_with, turned):
    write_rows(tmp_path / "list_pathway_hsa.txt", [(names_with + pathway, name) for pathway, name in NAMES])
    links = LINKS if links_with else bare(LINKS)
    write_rows(tmp_path / "link_hsa_pathway.txt", [row[::-1] for row in links] if turned else links)
    statements = read(tmp_path)
    assert statements.rows_read == len(LINKS)
    assert adds_up(statements)
    assert statements.dropped == {"duplicate": 1}
    # Overview maps repeat the genes of the others: kept and marked.
    overview = statements.terms["category"] == "overview map"
    assert statements.terms.loc[overview, ["term_id", "term_name", "entrez_id"]].to_numpy().tolist() == [
        ["hsa01100", "Metabolic pathways", "10327"],
        ["hsa01230", "Biosynthesis of amino acids", "226"],
    ]
    assert statements.says_little == {"hsa01100": "overview map", "hsa01230": "overview map"}
    assert statements.terms.loc[~overview, ["term_id", "term_name", "entrez_id"]].to_numpy().tolist() == [
        ["hsa00010", "Glycolysis / Gluconeogenesis", "10327"],
        ["hsa00010", "Glycolysis / Gluconeogenesis", "124"],
        ["hsa04110", "Cell cycle", "595"],
        ["hsa05555", "hsa05555", "595"],
    ]
    assert statements.notes == ["1 pathways are not in list_pathway_hsa.txt; their id stands for their name"]


def test_files_may_lie_as_at_the_service_and_tell_the_release(tmp_path):
    for name in ("list/pathway", "link/hsa", "info"):
        (tmp_path / name).mkdir(parents=True)
    write_rows(tmp_path / "list/pathway/hsa", NAMES)
    write_rows(tmp_path / "link/hsa/pathway", LINKS)
    (tmp_path / "info/pathway").write_text(
        "pathway          KEGG Pathway Database\npath             Release 120.0+/11-20, Nov 26\n                 Kanehisa Laboratories\n"
    )
    assert read(tmp_path).version == "120.0+/11-20"


@pytest.mark.parametrize(
    ("names", "links", "message"),
    [
        (NAMES, [("path:mmu00010", "mmu:1")], "holds 'mmu00010' where an id like hsa00010"),
        (NAMES, [("path:hsa00010", "10327")], "holds '10327' where an id like hsa:10327"),
        (NAMES, [*LINKS, ("path:hsa04110",)], "damaged or cut off"),
        (NAMES, [*LINKS, ("path:hsa04110", "hsa:")], "holds 'hsa:'"),
        (NAMES, [("Bad request", "400")], "holds 'Bad request'"),
        ([("map00010", "Glycolysis")], LINKS, "holds 'map00010'"),
        ([("hsa09999", "Another")], LINKS, "no pathway of .* is in"),
        (NAMES, [("<html>", "x")], "web page"),
    ],
)
def test_other_answers_are_refused(tmp_path, names, links, message):
    write_rows(tmp_path / "list_pathway_hsa.txt", names)
    write_rows(tmp_path / "link_hsa_pathway.txt", links)
    with pytest.raises(UserError, match=message):
        read(tmp_path)
