"""The network: a pair once, its category and channel, and genes by the better source."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.string import experimental, read

INFO = "#string_protein_id\tpreferred_name\tprotein_size\tannotation\n" + "".join(
    f'9606.ENSP{n}\tGENE{n}\t100\tan "annotation # {n}\n' for n in range(1, 6)
)
ALIASES = "#string_protein_id\talias\tsource\n" + "".join(
    f"9606.ENSP{protein}\t{alias}\t{source}\n"
    for protein, alias, source in [
        (1, "ENSG11", "Ensembl_gene"), (1, "ENSG1", "Ensembl_HGNC_ensembl_gene_id"), (1, "P1", "UniProt_AC"),
        (2, "ENSG2.3", "Ensembl_gene"), (3, "ENSG3", "Ensembl_gene"), (3, "ENSG33", "Ensembl_gene"),
        (4, "ENSG44", "Ensembl_gene"), (4, "ENSG444", "Ensembl_gene"), (4, "ENSG4", "Ensembl_HGNC_ensembl_gene_id"),
        (4, "ENSG4", "Ensembl_HGNC_ensembl_gene_id"), (9, "ENSG9", "Ensembl_gene"),
    ]
)  # fmt: skip
PAIRS = [(1, 2, 900), (2, 1, 900), (1, 3, 151), (3, 1, 160), (4, 5, 999), (5, 4, 999), (2, 2, 500), (7, 1, 400)]
LINKS = "protein1 protein2 combined_score\n" + "".join(f"9606.ENSP{a} 9606.ENSP{b} {s}\n" for a, b, s in PAIRS)
CHANNELS = "neighborhood fusion cooccurence coexpression experimental database textmining"
DETAILED = f"protein1 protein2 {CHANNELS} combined_score\n" + "".join(
    f"9606.ENSP{a} 9606.ENSP{b} 0 0 0 {s // 2} {s // 3} 0 {s // 4} {s}\n" for a, b, s in PAIRS
)
PHYSICAL = "protein1 protein2 combined_score\n9606.ENSP2 9606.ENSP1 300\n9606.ENSP1 9606.ENSP2 300\n"


def write(folder: Path, version: str = "12.0", **files: str) -> Path:
    for kind, text in {"info": INFO, "aliases": ALIASES, **files}.items():
        path = folder / f"9606.protein.{kind.replace('_', '.')}.v{version}.txt.gz"
        path.write_bytes(gzip.compress(text.encode()))
    return folder


@pytest.mark.parametrize("detailed", [False, True])
def test_each_pair_once_with_its_genes(tmp_path: Path, detailed: bool) -> None:
    write(tmp_path, links=LINKS)
    if detailed:  # both are there: the one that says more is read, and the other is not counted
        write(tmp_path, links_detailed=DETAILED)
    found = read(tmp_path)
    edges = found.edges
    assert edges is not None
    assert found.terms is None
    assert not found.directed
    plain: dict[frozenset[int], int] = {}
    for row in csv.DictReader(LINKS.splitlines(), delimiter=" "):
        a, b = (int(row[name].removeprefix("9606.ENSP")) for name in ("protein1", "protein2"))
        if a != b and {a, b} <= set(range(1, 6)):
            plain[frozenset((a, b))] = max(int(row["combined_score"]), plain.get(frozenset((a, b)), 0))
    got = {
        frozenset((int(row.source_gene_symbol[4:]), int(row.target_gene_symbol[4:]))): row.score
        for row in edges.itertuples()
    }
    assert got == {pair: score / 1000 for pair, score in plain.items()}
    assert len(edges) == len(got)
    assert found.rows_read == len(PAIRS) == len(edges) + sum(found.dropped.values())
    assert found.dropped == {"duplicate": 3, "a protein with itself": 1, "protein without a name": 1}
    assert found.version == "12.0"
    genes = {
        getattr(row, f"{side}_gene_symbol"): getattr(row, f"{side}_ensembl_id")
        for row in edges.itertuples()
        for side in ("source", "target")
    }
    # HGNC's word first; a version is cut; several genes of Ensembl give none, and the symbol decides
    assert genes == {"GENE1": "ENSG1", "GENE2": "ENSG2", "GENE3": "", "GENE4": "ENSG4", "GENE5": ""}
    assert found.notes == ["1 proteins have several Ensembl genes; their gene is looked up by its symbol"]
    assert set(edges["category"]) == {"functional"}
    if detailed:
        pair = edges[edges["score"] == 0.9]
        assert pair["evidence"].tolist() == ["coexpression; experimental 0.300"]
        assert np.allclose(np.sort(experimental(edges["evidence"])), [0.053, 0.300, 0.333])
    else:
        assert set(edges["evidence"]) == {""}
        assert experimental(edges["evidence"]).isna().all()


def test_physical_pairs_are_a_category_of_their_own(tmp_path: Path) -> None:
    edges = read(write(tmp_path, links=LINKS, physical_links=PHYSICAL)).edges
    assert edges is not None
    physical = edges[edges["category"] == "physical"]
    assert physical[["source_gene_symbol", "target_gene_symbol", "score"]].values.tolist() == [["GENE1", "GENE2", 0.3]]
    assert (edges["category"] == "functional").sum() == 3


def test_pairs_in_one_direction_are_told(tmp_path: Path) -> None:
    found = read(write(tmp_path, links="\n".join(LINKS.splitlines()[:4]) + "\n"))
    assert any(
        note.startswith("1 functional pairs stand in one direction only") and "cut off" in note for note in found.notes
    )


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"links": "protein1 protein2 combined_score\n"}, "has no rows"),
        ({"links": LINKS.replace("combined_score", "score")}, "has no column 'combined_score'"),
        ({"links": LINKS.replace(" ", "\t")}, "has no column 'protein1'"),
        ({"links": LINKS + "9606.ENSP1 9606.EN"}, "damaged or cut off"),
        ({"links": LINKS.replace(" 900", " 0.9")}, "damaged or cut off"),
        ({"links": LINKS.replace(" 900", " 9000")}, "not between 0 and 1000"),
        ({"links": LINKS, "aliases": ALIASES.replace("Ensembl", "BLAST")}, "names no gene of Ensembl"),
        ({"links": LINKS, "info": "<html>"}, "has no column 'string_protein_id'"),
        ({}, r"no 9606\.protein\.links\.v12\.0\.txt\.gz"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, files: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read(write(tmp_path, **files))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    write(tmp_path, links=LINKS.splitlines()[0] + "\n" + "\n".join(LINKS.splitlines()[1:] * 2000) + "\n")
    path = tmp_path / "9606.protein.links.v12.0.txt.gz"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="damaged or cut off"):
        read(tmp_path)


def test_two_versions_are_refused(tmp_path: Path) -> None:
    write(tmp_path, links=LINKS)
    write(tmp_path, version="12.5", physical_links=PHYSICAL)
    with pytest.raises(UserError, match=r"versions 12\.0, 12\.5"):
        read(tmp_path)


def _pairs(found) -> set[tuple[str, str, str, str]]:
    names = ["source_ensembl_id", "source_gene_symbol", "target_ensembl_id", "target_gene_symbol"]
    return set(found.edges[names].itertuples(index=False, name=None))


def test_names_or_aliases_are_enough(tmp_path: Path) -> None:
    write(tmp_path, links=LINKS)
    (tmp_path / "9606.protein.aliases.v12.0.txt.gz").unlink()
    found = read(tmp_path)
    assert _pairs(found) == {("", "GENE1", "", "GENE2"), ("", "GENE1", "", "GENE3"), ("", "GENE4", "", "GENE5")}
    assert any("by symbol alone" in note for note in found.notes)
    write(tmp_path, links=LINKS)
    (tmp_path / "9606.protein.info.v12.0.txt.gz").unlink()
    found = read(tmp_path)
    assert ("ENSG1", "", "ENSG2", "") in _pairs(found)
    assert found.dropped["protein without a name"] == 3  # proteins 5 and 7 have no alias
    (tmp_path / "9606.protein.aliases.v12.0.txt.gz").unlink()
    with pytest.raises(UserError, match=r"no 9606\.protein\.info"):
        read(tmp_path)


def test_headers_of_version_11_0(tmp_path: Path) -> None:
    info = INFO.replace("#string_protein_id", "protein_external_id")
    rows = [
        (1, "ENSG1", "BLAST_UniProt_DR_Ensembl Ensembl Ensembl_UniProt_DR"), (1, "P1", "UniProt_AC"),
        (2, "ENSG9", "BLAST_UniProt_DR_Ensembl"), (3, "ENSG3", "Ensembl"),
    ]  # fmt: skip
    text = "## string_protein_id ## alias ## source ##\n" + "".join(f"9606.ENSP{n}\t{a}\t{s}\n" for n, a, s in rows)
    full = LINKS.replace("protein2 combined", "protein2 neighborhood_transferred combined").splitlines()
    full = [full[0], *(line.rpartition(" ")[0] + " 0 " + line.rpartition(" ")[2] for line in full[1:])]
    found = read(write(tmp_path, "11.0", info=info, aliases=text, links_full="\n".join(full) + "\n"))
    assert ("ENSG1", "GENE1", "", "GENE2") in _pairs(found)
    assert ("ENSG1", "GENE1", "ENSG3", "GENE3") in _pairs(found)


def test_proteins_of_the_mouse_are_refused(tmp_path: Path) -> None:
    write(tmp_path, links=LINKS.replace("9606.", "10090."), info=INFO.replace("9606.", "10090."))
    with pytest.raises(UserError, match="no protein of 9606"):
        read(tmp_path)
