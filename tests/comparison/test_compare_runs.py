"""The table of several runs: who found what, and what chance gives."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from sae_genomics.artifacts import FEATURE_TERMS
from scripts.compare_runs import main
from tests.comparison.planted import gmt, validated


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """a finds sets 0 to 19, b finds sets 1 to 6 and 10 to 23, c finds sets 0 and 30 to 49; each in two layers."""
    file = gmt(tmp_path)
    return [
        validated(tmp_path, "a", {0: list(range(10)), 3: list(range(10, 20))}, file, seed=1),
        validated(tmp_path, "b", {0: list(range(10, 20)), 3: [*range(1, 7), *range(20, 24)]}, file, seed=2),
        validated(tmp_path, "c", {1: [0, *range(30, 40)], 2: list(range(40, 50))}, file, seed=3),
    ]


def tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    return (
        pd.read_csv(out / "terms.tsv", sep="\t"),
        pd.read_csv(out / "pairs.tsv", sep="\t"),
        (out / "comparison.md").read_text(),
    )


def test_terms_pairs_and_page(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*map(str, runs), "--out", str(tmp_path / "out")]) == 0
    terms, pairs, page = tables(tmp_path / "out")

    # by reading the tables of the runs plainly
    layers = {"a": (0, 3), "b": (0, 3), "c": (1, 2)}
    found: dict[tuple[str, int], pd.DataFrame] = {}
    for name, of_run in layers.items():
        for layer in of_run:
            frame = FEATURE_TERMS.read(tmp_path / "results" / name / f"layer_{layer:02d}" / FEATURE_TERMS.file)
            found[name, layer] = frame[(frame["q_matched"] < 0.05) & (frame["explained_by"] == "")]
    assert set(terms["term_id"]) == {term for frame in found.values() for term in frame["term_id"]}
    for record in terms.to_dict("records"):
        for (name, layer), frame in found.items():
            assert record[f"{name}:{layer}"] == frame.loc[frame["term_id"] == record["term_id"], "feature"].nunique()
    by_name = terms.set_index("term_id")
    assert by_name.loc["set 12", ["a:0", "a:3", "b:0", "b:3", "c:1", "c:2"]].tolist() == [0, 1, 1, 0, 0, 0]
    assert by_name.loc["set 12", "n_runs"] == 2
    assert by_name.loc["set 12", "n_tested"] == 3
    assert {f"set {i}" for i in [*range(24), *range(30, 50)]} <= set(by_name.index)
    assert by_name["n_runs"].is_monotonic_decreasing

    wholes = pairs[pairs["layer_a"] == "any"]
    assert wholes[["run_a", "run_b"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert len(pairs) == 3 + 3 * 4
    a_b, a_c, b_c = wholes.to_dict("records")
    assert a_b["terms_tested"] == 61
    assert a_b["families_tested"] == 60  # set 0 and its copy are one
    sets = {
        name: set().union(*(frame["term_id"] for (run, _), frame in found.items() if run == name)) for name in layers
    }
    assert a_b["terms_shared"] == len(sets["a"] & sets["b"]) >= 16
    assert a_c["terms_shared"] == len(sets["a"] & sets["c"])
    assert "copy 0" in sets["a"] & sets["c"]
    assert a_c["families_shared"] == a_c["terms_shared"] - 1
    assert b_c["p_value"] > 0.5
    crossed = pairs[(pairs["run_a"] == "a") & (pairs["run_b"] == "b")].set_index(["layer_a", "layer_b"])
    assert crossed.loc[("3", "0"), "families_shared"] >= 10
    assert crossed.loc[("3", "0"), "p_value"] < 1e-5
    assert crossed.loc[("3", "0"), "q_value"] < 0.001
    assert crossed.loc[("0", "0"), "p_value"] > 0.05
    # all sets have one size, and so one stratum; the family of set 0 and its copy is larger
    assert crossed.loc[("3", "0"), "families_by_chance"] == pytest.approx(10 * 10 / 59)

    assert "a and b share" in page
    assert "more than chance gives. a and c" in page
    assert page.count("not more than chance may give") == 2
    assert "| planted | set 12 | 3 | 0 | – |" in page
    assert "12 of 12 pairs of layers have terms on both sides. `pairs.tsv` has all." in page
    assert page.index("| a, layer 3 | b, layer 0 |") < page.index("| a, layer 0 | b, layer 0 |")  # by p
    assert capsys.readouterr().out.endswith("comparison.md\n")


def test_the_page_is_printed_where_no_folder_is_named(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(runs[0].parent.rglob("*"))
    assert main([str(runs[0]), str(runs[1])]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# Known biology in 2 runs\n")
    rows = [line for line in text.splitlines() if line.startswith("| a | b |")]
    assert len(rows) == 1
    assert sorted(runs[0].parent.rglob("*")) == before


def test_terms_that_one_run_was_not_tested_with(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "planted2.gmt"
    few.write_text("".join(io.StringIO((tmp_path / "planted.gmt").read_text()).readlines()[:12]))
    other = validated(tmp_path, "d", {0: list(range(8))}, few, seed=4)
    (tmp_path / "again").mkdir()
    few = few.rename(tmp_path / "again" / "planted.gmt")
    file = other / "config.yaml"
    file.write_text(file.read_text().replace("planted2.gmt", "again/planted.gmt"))
    capsys.readouterr()
    # It was validated with sets of another name: this is said, and nothing is compared.
    assert main([str(runs[0]), str(other)]) == 2
    assert "its gene sets are not those that it was validated with (planted, planted2)" in capsys.readouterr().err
    other = validated(tmp_path, "e", {0: list(range(8))}, few, seed=4)
    assert main([str(runs[0]), str(other), "--out", str(tmp_path / "out")]) == 0
    terms, pairs, page = tables(tmp_path / "out")
    assert pairs["terms_tested"].tolist() == [12, 12, 12]
    missing = terms.set_index("term_id").loc["set 15"]
    assert pd.isna(missing["e:0"])
    assert missing["n_tested"] == 1
    assert "| planted | set 15 | 3 | not tested |" in page


def test_a_run_that_finds_nothing(runs: list[Path], tmp_path: Path) -> None:
    nothing = validated(tmp_path, "n", {0: []}, tmp_path / "planted.gmt", seed=5)
    assert main([str(runs[0]), str(nothing), "--out", str(tmp_path / "out")]) == 0
    _, pairs, page = tables(tmp_path / "out")
    assert pairs["families_b"].tolist() == [0, 0, 0]
    assert pairs["p_value"].tolist() == [1, 1, 1]
    assert "a and n cannot be compared, because one of them finds no term" in page
    assert "0 of 2 pairs of layers have terms on both sides." in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a"], "name two runs or more"),
        (["a", "a"], "a run is named twice"),
        (["a", "nowhere.yaml"], "no such config file"),
        (["a", "empty"], "has no config.yaml"),
        (["a", "unvalidated"], "run the stage validate of this run first"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    results = tmp_path / "results"
    (results / "empty").mkdir()
    (results / "unvalidated").mkdir()
    (results / "unvalidated" / "config.yaml").write_text((results / "a" / "config.yaml").read_text())
    capsys.readouterr()
    out = tmp_path / "out"
    assert main([*(str(results / name) for name in arguments), "--out", str(out)]) == 2
    said = capsys.readouterr().err.strip()
    assert says in said
    assert "\n" not in said
    assert not out.exists()
