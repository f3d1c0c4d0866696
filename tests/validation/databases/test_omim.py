"""OMIM: the header among comments, both names of columns, short rows, and the forms of a phenotype."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases import omim
from tests.validation.databases.counts import check, dropped

_START = "# Chromosome\tGenomic Position Start\tGenomic Position End\tCyto Location\tComputed Cyto Location\t"
NEW = f"{_START}MIM Number\tGene/Locus And Other Related Symbols\tGene Name\tApproved Gene Symbol\tEntrez Gene ID\tEnsembl Gene ID\tComments\tPhenotypes\tMouse Gene Symbol/ID"
OLD = f"{_START}Mim Number\tGene Symbols\tGene Name\tApproved Symbol\tEntrez Gene ID\tEnsembl Gene ID\tComments\tPhenotypes\tMouse Gene Symbol/ID"
FOOTER = "# Phenotype Mapping key - Appears in parentheses after a disorder :\n# 1 - the disorder is placed on the map; x, 100001 (3)\n#\n"


def gene(phenotypes: str, symbol: str = "AAA", entrez: str = "7", ensembl: str = "ENSG01", mouse: str = "Aaa") -> str:
    return f"chr1\t0\t9\t1p36.3\t\t600001\t{symbol}, OLD1\ta gene, long; name\t{symbol}\t{entrez}\t{ensembl}\t\t{phenotypes}\t{mouse}"


def written(folder: Path, rows: list[str], header: str = NEW, end: str = "\n") -> Path:
    head = [
        "# Copyright (c) 2031 Nobody",
        "# Generated: 2031-02-03",
        "# See end of file for additional documentation",
        header,
    ]
    text = end.join([*head, *rows, FOOTER.replace("\n", end)])
    (folder / "genemap2.txt").write_bytes(text.encode())
    return folder


def found(statements) -> list[tuple[str, str, str, str]]:
    return list(statements.terms[["term_id", "term_name", "category", "evidence"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("header", [NEW, OLD], ids=["since October 2023", "before"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_header_footer_and_ids(tmp_path: Path, header: str, end: str) -> None:
    rows = [
        gene("Nails, blue, type 2, 100001 (3), Autosomal dominant; Hair, red, 100002 (3)"),
        gene("Hair, red, 100002 (3)", symbol="", entrez="", ensembl=""),  # a locus
        gene(""),
        gene("", mouse="").rstrip("\t"),  # a row that ends early
        gene("Hair, red, 100002 (3)", "BBB", "8", "", mouse="").rstrip("\t"),
    ]
    statements = omim.read(written(tmp_path, rows, header, end))
    check(statements, rows_read=5)
    assert statements.version == "2031-02-03"
    assert statements.dropped == {"no gene": 1, "no phenotype": 2}
    assert found(statements) == [
        ("OMIM:100001", "Nails, blue, type 2", "MENDELIAN", "key 3"), ("OMIM:100002", "Hair, red", "MENDELIAN", "key 3"),
        ("OMIM:100002", "Hair, red", "MENDELIAN", "key 3"),
    ]  # fmt: skip
    ids = statements.terms[["gene_symbol", "entrez_id", "ensembl_id"]].to_numpy().tolist()
    assert ids == [["AAA", "7", "ENSG01"]] * 2 + [["BBB", "8", ""]]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Nails, blue, 100001 (3), Autosomal dominant, Somatic mutation", [("OMIM:100001", "Nails, blue", "MENDELIAN", "key 3")]),
        ("Nails, blue (type 1), 100001 (3)", [("OMIM:100001", "Nails, blue (type 1)", "MENDELIAN", "key 3")]),
        ("Dystonia, primary cervical (3)", [("OMIM:600001", "Dystonia, primary cervical", "MENDELIAN", "key 3")]),
        ("Dystonia (3), Isolated cases", [("OMIM:600001", "Dystonia", "MENDELIAN", "key 3")]),
        ("{Nails, susceptibility to}, 100001 (3)", [("OMIM:100001", "Nails, susceptibility to", "SUSCEPTIBILITY", "key 3")]),
        ("{Nails, resistance to} (3)", [("OMIM:600001", "Nails, resistance to", "SUSCEPTIBILITY", "key 3")]),
    ],
)  # fmt: skip
def test_phenotypes_that_are_taken(tmp_path: Path, cell: str, expected: list[tuple[str, str, str, str]]) -> None:
    statements = omim.read(written(tmp_path, [gene(cell)]))
    assert found(statements) == expected
    assert not statements.dropped


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("[Blood group, XY system], 100001 (3)", "non-disease ([ ])"), ("?Nails, blue, 100001 (3)", "provisional (?)"),
        ("{?Nails, susceptibility to}, 100001 (3)", "provisional (?)"), ("?{Nails}, 100001 (3)", "provisional (?)"),
        ("{[Nails]}, 100001 (3)", "non-disease ([ ])"), ("Nails, 100001 (1)", "key 1 (association)"),
        ("{Nails}, 100001 (2)", "key 2 (linkage)"), ("Nails (4)", "key 4 (deletion or duplication of several genes)"),
    ],
)  # fmt: skip
def test_phenotypes_that_are_left_out(tmp_path: Path, cell: str, reason: str) -> None:
    statements = omim.read(written(tmp_path, [gene(cell), gene(f"Hair, 100002 (3); {cell}")]))
    check(statements, rows_read=2)
    assert statements.dropped == {f"phenotype: {reason}": 1}
    assert found(statements) == [("OMIM:100002", "Hair", "MENDELIAN", "key 3")]
    assert f"phenotypes left out, {reason}: 2 of 3" in statements.notes
    assert statements.rows_read - dropped(statements) == 1


def test_a_phenotype_of_no_known_form_is_counted(tmp_path: Path) -> None:
    statements = omim.read(written(tmp_path, [gene("Hair, 100002 (3); something else")]))
    assert "phenotypes left out, not of a known form: 1 of 2" in statements.notes
    with pytest.raises(UserError, match="no phenotype has the form"):
        omim.read(written(tmp_path, [gene("something else")]))


def test_genes_without_any_phenotype(tmp_path: Path) -> None:
    statements = omim.read(written(tmp_path, [gene(""), gene("")]))
    assert statements.dropped == {"no phenotype": 2}
    assert statements.terms.empty


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of genemap2"):
        omim.read(tmp_path)
    with pytest.raises(UserError, match="no rows"):
        omim.read(written(tmp_path, []))
    with pytest.raises(UserError, match="no header line"):
        omim.read(written(tmp_path, [gene("x, 100001 (3)")], header="# Phenotype\tGene Symbols"))
    with pytest.raises(UserError, match="no column 'Phenotypes'"):
        omim.read(written(tmp_path, [gene("x, 100001 (3)")], header=NEW.replace("Phenotypes", "Disorders")))
    with pytest.raises(UserError, match="line 6 has 3 cells and its header 14"):
        omim.read(written(tmp_path, [gene("x, 100001 (3)"), "chr1\t0\t9"]))
    (tmp_path / "genemap2.txt").write_text("<html>Your key has expired</html>")
    with pytest.raises(UserError, match="web page"):
        omim.read(tmp_path)


_BY_PHENOTYPE = "# Generated: 2031-02-03\n# Phenotype\tGene Symbols\tMIM Number\tCyto Location\n"


@pytest.mark.parametrize("with_numbers", [False, True])
def test_a_table_by_phenotype_is_read_where_the_other_is_not_there(tmp_path: Path, with_numbers: bool) -> None:
    rows = [
        "17,20-nail deficiency; blue, 100001 (3)\tAAA, OLD1, OLD2\t600001\t10q24.32",
        ":Hair, red, 100002 (3)\tBBB, P58,\t600002\t1q22",  # both slips of the pen are in real files
        "?Anal hair (2)\tANC\t105580\t11q22-qter",
        "{Hair, red, susceptibility to}, 100003 (3)\tCCC\t600003",
        "3p- syndrome (4)\tDEL3\t613792\t3pter",
    ]
    (tmp_path / "morbidmap.txt").write_text(_BY_PHENOTYPE + "\n".join(rows) + "\n" + FOOTER)
    if with_numbers:
        header = (
            "# MIM Number\tMIM Entry Type (see FAQ 1.3 at https://omim.org/help/faq)\tEntrez Gene ID (NCBI)\t"
            "Approved Gene Symbol (HGNC)\tEnsembl Gene ID (Ensembl)\n"
        )
        numbers = "600001\tgene\t7\tAAA1\tENSG01,ENST01\n100001\tphenotype\n600003\tgene\t9\tCCC\tENSG03\n"
        (tmp_path / "mim2gene.txt").write_text(header + numbers)
    statements = omim.read(tmp_path)
    check(statements, rows_read=5)
    assert statements.version == "2031-02-03"
    assert found(statements) == [
        ("OMIM:100001", "17,20-nail deficiency; blue", "MENDELIAN", "key 3"), ("OMIM:100002", "Hair, red", "MENDELIAN", "key 3"),
        ("OMIM:100003", "Hair, red, susceptibility to", "SUSCEPTIBILITY", "key 3"),
    ]  # fmt: skip
    ids = statements.terms[["gene_symbol", "entrez_id", "ensembl_id"]].to_numpy().tolist()
    known = [["AAA1", "7", "ENSG01"], ["BBB", "", ""], ["CCC", "9", "ENSG03"]]
    assert ids == (known if with_numbers else [[symbol, "", ""] for symbol in ("AAA", "BBB", "CCC")])
    assert any("read morbidmap.txt" in note for note in statements.notes)


def test_numbers_alone_are_no_relations(tmp_path: Path) -> None:
    (tmp_path / "mim2gene.txt").write_text("# MIM Number\n")
    with pytest.raises(UserError, match=r"none of genemap2\.txt, morbidmap\.txt is in"):
        omim.read(tmp_path)
