"""scripts/annotate.py: a list of genes gets the numbers that a feature with these genes gets."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from sae_genomics.annotate import enrich
from sae_genomics.annotate.gene_files import gene_lists
from sae_genomics.artifacts import FEATURE_GENES, FEATURE_TERMS
from sae_genomics.validation.normal_form import schema
from scripts.annotate import main
from tests.comparison.planted import gmt, validated
from tests.validation.normal_form.hgnc_file import filler, gene, write_hgnc

Rows = list[tuple[str, str, str, bool]]  # term_id, term_name, gene_symbol, negative


def database(folder: Path, rows: Rows) -> None:
    frame = pd.DataFrame(rows, columns=["term_id", "term_name", "gene_symbol", "negative"])
    frame = frame.assign(source=folder.name, ensembl_id="", hgnc_id="", score=1.0, evidence="", category="x")
    schema.write_table(
        folder / schema.TERMS_FILE, pa.Table.from_pandas(frame[schema.TERMS.names], preserve_index=False)
    )
    schema.write_source(folder, {"name": folder.name, "title": folder.name, "version": "1"})


@pytest.fixture
def databases(tmp_path: Path) -> Path:
    """Two databases. GENE0 to GENE39 are in hpo's terms, GENE0 to GENE99 in reactome's, four of them said not to belong."""
    folder = tmp_path / "databases"
    database(
        folder / "hpo",
        [(f"HP:{i}", f"phenotype {i}", f"GENE{g}", False) for i in range(4) for g in range(10 * i, 10 * i + 10)],
    )
    database(
        folder / "reactome",
        [(f"R-{i}", f"pathway {i}", f"GENE{g}", False) for i in range(5) for g in range(20 * i, 20 * i + 16)]
        + [(f"R-{i}", f"pathway {i}", f"GENE{g}", True) for i in range(5) for g in range(20 * i + 16, 20 * i + 20)],
    )
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "c.yaml"
    file.write_text(
        f"data: {{path: x.h5ad}}\npaths: {{databases: {tmp_path / 'databases'}}}\nvalidation: {{builtin: false}}\n"
    )
    return file


def rows_of(capsys: pytest.CaptureFixture[str]) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(capsys.readouterr().out), sep="\t", keep_default_na=False)


def test_the_numbers_are_those_of_the_hypergeometric_test_in_each_sources_background(
    databases: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = [f"GENE{g}" for g in range(0, 200)]
    (tmp_path / "measured.txt").write_text("gene\n" + "\n".join(measured) + "\n")
    listed = [f"GENE{g}" for g in [*range(8), 25, 70, 150, 151]]
    assert (
        main([*listed, "NOT1", "--config", str(config), "--background", str(tmp_path / "measured.txt"), "--tsv"]) == 0
    )
    said = capsys.readouterr()
    assert "12 of 13 genes tested; not in the background: NOT1" in said.err
    rows = pd.read_csv(io.StringIO(said.out), sep="\t", keep_default_na=False).set_index("term_id")
    # counted plainly: hpo could have named GENE0 to GENE39, reactome GENE0 to GENE99
    named = {"hpo": set(range(40)), "reactome": set(range(100))}
    sets = {f"HP:{i}": ("hpo", set(range(10 * i, 10 * i + 10))) for i in range(4)}
    sets |= {f"R-{i}": ("reactome", set(range(20 * i, 20 * i + 16))) for i in range(5)}
    numbers = {int(name.removeprefix("GENE")) for name in listed}
    p = {}
    for term, (source, genes) in sets.items():
        inside = numbers & named[source]
        p[term] = stats.hypergeom.sf(len(inside & genes) - 1, len(named[source]), len(genes), len(inside))
        if term in rows.index:
            row = rows.loc[term]
            assert row["list"] == "genes"
            assert (row["collection"], row["n_overlap"]) == (source, len(inside & genes))
            assert (row["n_term"], row["n_top"], row["n_background"]) == (len(genes), len(inside), len(named[source]))
            assert row["p_value"] == pytest.approx(p[term], rel=1e-9)
            assert set(row["genes"].split(",")) == {f"GENE{g}" for g in inside & genes}
    assert set(rows.index) == {term for term, value in p.items() if value <= 0.05} == {"HP:0", "R-0"}
    best = stats.false_discovery_control(list(p.values()))
    assert rows["q_value"].to_dict() == {
        term: pytest.approx(q, rel=1e-9) for term, q in zip(p, best, strict=True) if term in rows.index
    }
    assert "p_matched" not in rows  # nothing is known of expression


def test_a_list_gets_the_numbers_of_a_feature_with_the_same_genes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = validated(tmp_path, "a", {0: [3, 17, 40]}, gmt(tmp_path))
    layer = results / "layer_00"
    capsys.readouterr()
    genes = FEATURE_GENES.read(layer / FEATURE_GENES.file)
    lists = tmp_path / "features.gmt"
    lists.write_text(
        "".join(f"{f}\tx\t" + "\t".join(rows["gene_symbol"]) + "\n" for f, rows in genes.groupby("feature"))
    )
    command = [str(lists), "--config", str(results / "config.yaml"), "--background", str(layer / "gene_tokens.parquet")]
    assert main([*command, "--tsv", "--top", "0"]) == 0
    rows = rows_of(capsys).rename(columns={"list": "feature"})
    table = FEATURE_TERMS.read(layer / FEATURE_TERMS.file)
    table = table[table["p_value"] <= 0.05].reset_index(drop=True)
    assert len(table) >= 3
    assert list(rows.columns) == list(table.columns)
    # The run has other numbers of tests only where it has other features; here all of them are the lists.
    pd.testing.assert_frame_equal(rows.astype(table.dtypes), table, rtol=1e-12)
    assert (rows["q_matched"] < 0.05).any()


def test_old_names_and_ids_are_the_genes_that_they_name(
    databases: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genes = [gene(g + 1, f"GENE{g}", prev_symbol=f"OLD{g}", alias_symbol=f"A{g}|B{g}") for g in range(200)]
    write_hgnc(databases / "hgnc" / "files", [*genes, *filler(10_000)])
    names = ["OLD0", "b1", "ENSG00000000003", "ENSG00000000004.7", "HGNC:5", "1006", "GENE6", "gene7", "OLD7", "NOT1"]
    (tmp_path / "mine.txt").write_text("# my genes\nsymbol\tscore\n" + "".join(f"{name}\t1\n" for name in names))
    assert main([str(tmp_path / "mine.txt"), "--config", str(config), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["background"] == {"genes": 10_200, "what": "all genes that make proteins (HGNC)"}
    assert said["lists"] == [{"list": "mine", "n_genes": 9, "n_tested": 8, "not_in_background": ["NOT1"]}]
    assert [each["term_id"] for each in said["terms"]] == ["R-0", "HP:0"]
    top = said["terms"][1]
    assert sorted(top["genes"]) == [f"GENE{g}" for g in range(8)]
    assert top["p_value"] == pytest.approx(stats.hypergeom.sf(7, 40, 10, 8), rel=1e-9)
    assert {each["name"]: each["n_fit"] for each in said["collections"]} == {"hpo": 4, "reactome": 5}


def test_a_p_far_in_the_tail_stays_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "big.gmt").write_text(
        "big\tx\t"
        + "\t".join(f"G{g}" for g in range(400))
        + "\nall\tx\t"
        + "\t".join(f"G{g}" for g in range(9000))
        + "\n"
    )
    (tmp_path / "c.yaml").write_text(
        f"data: {{path: x}}\nvalidation: {{builtin: false, gmt: [{tmp_path / 'big.gmt'}], databases: []}}\n"
    )
    (tmp_path / "list.txt").write_text("\n".join(f"G{g}" for g in range(150)))
    assert main([str(tmp_path / "list.txt"), "--config", str(tmp_path / "c.yaml"), "--json"]) == 0
    p = json.loads(capsys.readouterr().out)["terms"][0]["p_value"]
    assert 0 < p < 1e-180
    assert np.log(p) == pytest.approx(stats.hypergeom.logsf(149, 9000, 400, 150), rel=1e-9)


def test_the_page_for_a_reader(databases: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = [f"GENE{g}" for g in range(8)]
    assert main([",".join(listed), "--config", str(config), "--top", "1"]) == 0
    page = capsys.readouterr().out
    assert "Background: all genes that the gene sets name: 100 genes." in page
    assert "Gene sets that fit: hpo 4, reactome 5. Test: exact hypergeometric test." in page
    assert "genes: 8 of 8 genes tested." in page
    assert "genes: 2 terms with q_value < 0.05, the first 1 rows" in page
    assert sum("phenotype" in line or "pathway" in line for line in page.splitlines()) == 1
    assert "8 of 16" in page


def test_a_long_name_is_cut_and_its_id_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "A pathway whose name goes on and on and does not end where anybody would think that it should"
    database(tmp_path / "databases" / "reactome", [("R-HSA-77", name, f"GENE{g}", False) for g in range(5)])
    assert main(["GENE0", "GENE1", "GENE2", "--databases", str(tmp_path / "databases")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "R-HSA-77" in line)
    assert "A pathway whose name goes on and on and" in line
    assert "... (R-HSA-77)  GENE0, GENE1, GENE2" in line
    assert name not in line


def test_a_parent_that_has_only_its_childs_genes_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "databases" / "hpo"
    child = [("HP:2", "child", f"GENE{g}", False) for g in range(10)]
    others = [("HP:3", "sibling", f"GENE{g}", False) for g in range(10, 16)]
    far = [("HP:9", "far", f"GENE{g}", False) for g in range(100, 300)]
    database(folder, [*child, *others, *far])
    parents = {
        "source": "hpo",
        "term_id": ["HP:2", "HP:3"],
        "parent_id": ["HP:1", "HP:1"],
        "parent_name": ["parent"] * 2,
    }
    table = pa.Table.from_pandas(pd.DataFrame(parents), preserve_index=False)
    schema.write_table(folder / schema.PARENTS_FILE, table)
    command = [",".join(f"GENE{g}" for g in range(8)), "--databases", str(tmp_path / "databases")]
    (tmp_path / "all.txt").write_text("\n".join(f"GENE{g}" for g in range(300)))
    command += ["--background", str(tmp_path / "all.txt")]
    assert main([*command, "--tsv"]) == 0
    rows = rows_of(capsys).set_index("term_id")
    assert rows.loc["HP:1", ["n_term", "n_overlap", "explained_by"]].tolist() == [16, 8, "HP:2"]
    assert rows.loc["HP:2", "explained_by"] == ""
    assert main(command) == 0
    page = capsys.readouterr().out
    assert "parent (HP:1) <- HP:2" in page
    assert "<- ID: the genes of this more specific term explain the term." in page


def test_a_test_of_rankings_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = replace(enrich.enrichment_test_named("fisher"), name="ranks", reads="ranking")
    monkeypatch.setattr(enrich, "enrichment_test_named", lambda name: ranking)
    assert main(["CD3D"]) == 2
    assert "validation.test: ranks reads the order of all genes" in capsys.readouterr().err


def test_built_in_sets_without_any_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["CD3D", "CD3E", "CD3G", "CD247", "LCK", "--tsv"]) == 0
    rows = rows_of(capsys)
    assert rows["term"].iloc[0] == "T cell"
    assert rows["q_value"].is_monotonic_increasing
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.txt"], "no such file: nothing.txt"),
        (["CD3D", "--background", "none.txt"], "--background: no such file: none.txt"),
        (["CD3D", "--background", "none.parquet"], "is no gene_tokens.parquet"),
        (["CD3D", "--databases", "none"], "--databases: none is no folder"),
        (["CD3D", "--top", "-1"], "--top takes a number from 0 on"),
        (["XENO1", "XENO2"], "none of the genes (XENO1, XENO2) is in the background"),
        (["empty.txt"], "empty.txt holds no genes"),
        (["binary.txt"], "binary.txt is no text"),
        (["ranking.gmt"], "not a gene set"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n\ngene\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "ranking.gmt").write_text("only a name\n")
    before = sorted(tmp_path.iterdir())
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_more_genes_than_one_word_holds(tmp_path: Path) -> None:
    (tmp_path / "one_line.txt").write_text("A B,C;D\tE A")
    (tmp_path / "table.csv").write_text('gene,score\n"A",1\nB,2\nA,3\n')
    assert gene_lists(["X", str(tmp_path / "one_line.txt"), "Y,Z X", str(tmp_path / "table.csv")]) == {
        "genes": ["X", "Y", "Z"], "one_line": ["A", "B", "C", "D", "E"], "table": ["A", "B"],
    }  # fmt: skip
