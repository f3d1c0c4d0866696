"""The report's parts against plain computations."""

from __future__ import annotations

import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from planted_run import Plan, planted_run
from scipy.optimize import brentq
from scipy.sparse import csr_matrix

from sae_genomics.artifacts import CELLS, FEATURE_TERMS
from sae_genomics.associations.intervals import auroc_interval
from sae_genomics.report import collect, markdown, missing, provenance, reading
from sae_genomics.report.cells import read_activations, read_embedding, sample_cells, top_cells
from sae_genomics.report.section_type_baselines import beside_baselines
from sae_genomics.report.summary import LayerSummary, best_over_layers, side_by_side, with_certainty

# --- text ---


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1, max_size=40).filter(lambda text: text.strip()))
def test_escaped_text_renders_as_itself_within_a_table(text: str) -> None:
    page = markdown.table(("gene", "next"), [(markdown.escape(text), "x")])
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    cells = html.split("<tbody>")[1].split("<td>")[1:]
    assert len(cells) == 2
    shown = unescape(cells[0].split("</td>")[0])
    printable = "".join(" " if ord(each) < 32 or each in "\x7f\u2028\u2029" else each for each in text)
    assert shown.split() == printable.split()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab `|\\$<", min_size=1, max_size=12).filter(lambda text: text.strip()), st.booleans())
def test_code_shows_any_text(text: str, in_table: bool) -> None:
    shown = markdown.code(text, in_table)
    page = markdown.table(("a", "b"), [(shown, "x")]) if in_table else f"- {shown}!"
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    assert unescape(html.split("<code>")[1].split("</code>")[0]).split() == text.split()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.311, "31.1 %"), (0.0, "0.0 %"), (0.0003, "0.03 %"), (1e-9, "< 0.0001 %"), (float("nan"), "–"), (None, "–"), (1.0, "100.0 %")],
)  # fmt: skip
def test_percent(value: float | None, shown: str) -> None:
    assert markdown.percent(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.032, "0.032"), (4e-12, "4e-12"), (0.0, "< 1e-300"), (1.0, "1"), (np.nan, "–")]
)
def test_probability(value: float, shown: str) -> None:
    assert markdown.probability(value) == shown


def test_grouped_units() -> None:
    units = [f"shard_{number:04d}" for number in (0, 1, 2, 5, 7, 8)] + ["layer_03", "run"]
    assert missing.grouped(units) == "shard_0000 to shard_0002, shard_0005, shard_0007, shard_0008, layer_03, run"


# --- numbers ---


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, 1.0), st.integers(1, 500), st.integers(1, 5000))
def test_interval_ends_solve_the_published_equation(area: float, n_in: int, n_rest: int) -> None:
    low, high = (float(end) for end in auroc_interval(area, n_in, n_rest))
    assert 0 <= low <= area <= high <= 1

    def excess(t: float) -> float:
        n = (n_in + n_rest) / 2 - 1
        return (area - t) ** 2 - 1.959963984540054**2 * t * (1 - t) * (1 + n * (1 - t) / (2 - t) + n * t / (1 + t)) / (
            n_in * n_rest
        )

    if 1e-6 < area < 1 - 1e-6:
        assert low == pytest.approx(brentq(excess, 0, area), abs=1e-6)
        assert high == pytest.approx(brentq(excess, area, 1), abs=1e-6)


def test_interval_covers_the_true_area() -> None:
    rng = np.random.default_rng(0)
    truth, n_in, n_rest, repeats = 0.8556, 12, 90, 2000  # normal scores 1.5 apart: Phi(1.5 / sqrt 2) = 0.8556
    inside, rest = rng.normal(1.5, 1, (repeats, n_in)), rng.normal(0, 1, (repeats, n_rest))
    areas = (inside[:, :, None] > rest[:, None, :]).mean(axis=(1, 2))
    low, high = auroc_interval(areas, n_in, n_rest)
    assert 0.93 < np.mean((low <= truth) & (truth <= high)) < 0.99


def test_interval_is_unknown_without_cells() -> None:
    low, high = auroc_interval([np.nan, 0.9], [5, 0], [5, 5])
    assert np.isnan(low).all()
    assert np.isnan(high).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 9), st.integers(1, 7), st.integers(0, 5), st.integers(0, 2**31))
def test_top_cells_are_those_of_a_plain_sort(n_cells: int, d_sae: int, n_kept: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = (rng.integers(0, 4, (n_cells, d_sae)) * rng.integers(0, 2, (n_cells, d_sae))).astype(np.float32)
    top = top_cells(csr_matrix(dense), n_kept)
    for feature in range(d_sae):
        strongest = [cell for cell in np.argsort(-dense[:, feature], kind="stable") if dense[cell, feature] > 0]
        here = slice(top.feature_ptr[feature], top.feature_ptr[feature + 1])
        assert top.cell[here].tolist() == strongest[:n_kept]
        assert top.activation[here].tolist() == dense[strongest[:n_kept], feature].tolist()
        assert top.n_firing[feature] == len(strongest)


def test_best_over_layers_is_chosen_on_training_cells() -> None:
    def layer(number: int, train: float, heldout: float) -> LayerSummary:
        rows = pd.DataFrame([{"label": "B", "kind": "feature", "unit": number, "name": str(number), "auroc_train": train,
                              "auroc": heldout, "auroc_low": heldout - 0.1, "auroc_high": 1.0, "n_items": 30}])  # fmt: skip
        return LayerSummary(number, baselines=with_certainty(rows, None))

    best = best_over_layers([layer(0, 0.90, 0.99), layer(1, 0.95, 0.80), layer(2, 0.95, 0.97)])
    assert best is not None
    assert best[["layer", "auroc"]].to_numpy().tolist() == [
        [1, 0.80]
    ]  # not the best held-out one; of equals the first layer
    assert side_by_side(best).loc["B", ("feature", "layer")] == 1


# --- reading ---


@pytest.mark.parametrize("batch", [1, 7, 1 << 19])
def test_terms_kept_are_the_smallest_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    rng = np.random.default_rng(1)
    n = 120
    frame = pd.DataFrame(
        {column.name: "x" if column.type == "string" else 1 for column in FEATURE_TERMS.columns}, index=range(n)
    )
    frame["feature"], frame["p_value"] = rng.integers(0, 6, n), rng.permutation(n) / n
    FEATURE_TERMS.write(tmp_path / "terms.parquet", frame)
    monkeypatch.setattr(reading, "BATCH_ROWS", batch)
    kept = reading.smallest(tmp_path / "terms.parquet", ("p_value",), 3)
    for feature, group in kept.groupby("feature"):
        assert group["p_value"].tolist() == sorted(frame.loc[frame["feature"] == feature, "p_value"])[:3]
    assert kept["feature"].nunique() == frame["feature"].nunique()


@pytest.mark.parametrize("batch", [3, 1 << 19])
def test_cell_types_are_counted_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(reading, "BATCH_ROWS", batch)
    frame = pd.DataFrame({"cell": range(8), "cell_id": list("abcdefgh"), "heldout": [True, False] * 4, "n_counts": 1.0, "n_genes": 1, "group": None,
                          "cell_type": ["T", "T", "B", None, "T", "T", "T", "NK"]})  # fmt: skip
    CELLS.write(tmp_path / "cells.parquet", frame)
    counts = collect.count_labels(tmp_path / "cells.parquet", "cell_type")
    assert counts is not None
    assert counts.loc["T"].tolist() == [2, 3]
    assert counts.loc["B"].tolist() == [0, 1]
    assert counts.loc["NK"].tolist() == [1, 0]
    assert counts.index[0] == "T"
    CELLS.write(tmp_path / "cells.parquet", frame.assign(cell_type=None))
    assert collect.count_labels(tmp_path / "cells.parquet", "cell_type") is None


def test_sampled_cells_and_their_activations(tmp_path: Path) -> None:
    import anndata

    run = planted_run(tmp_path, Plan(layers=1, n_cells=300), report={"dashboard_cells": 40})
    sample, again = sample_cells(run), sample_cells(run)
    assert np.array_equal(sample.rows, again.rows)
    assert len(sample.rows) == 40
    assert (np.diff(sample.rows) > 0).all()
    path = run.layer_results(0) / "features.h5ad"
    table = anndata.read_h5ad(path)
    assert np.array_equal(read_activations(path, sample).toarray(), table.X[sample.rows].toarray())
    assert read_embedding(path, sample)
    assert np.allclose(sample.xy, table.obsm["X_umap"][sample.rows])
    assert sample.basis == "umap"
    assert sample.cell_id == table.obs_names[sample.rows].tolist()
    assert [sample.types[code] for code in sample.cell_type] == table.obs["bulk_labels"].iloc[sample.rows].tolist()


# --- provenance ---


def test_git_commit_is_that_of_the_checkout_itself(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    inner = tmp_path / "site-packages"
    inner.mkdir()
    assert provenance.git_commit(tmp_path) == ("", False)
    git("init", "-q")
    assert provenance.git_commit(tmp_path) == ("", False)  # no commit yet
    (tmp_path / "code.py").write_text("1\n")
    git("add", "code.py")
    git("commit", "-q", "-m", "first")
    assert provenance.git_commit(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "code.py").write_text("2\n")
    assert provenance.git_commit(tmp_path)[1] is True
    assert provenance.git_commit(inner) == ("", False)  # somebody else's repository around an installed package


def test_costs_add_up(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=3, d_sae=30))
    some = provenance.gather(run, {("train", "layer_01"), ("prepare", "run")})
    assert [cost.seconds for cost in some.costs if cost.stage == "train"] == [[61.5, 63.5]]
    assert [cost.stage for cost in some.costs] == ["extract", "train", "associate", "validate"]
    found = provenance.gather(run, set())
    train = next(cost for cost in found.costs if cost.stage == "train")
    assert train.seconds == [61.5, 62.5, 63.5]
    assert train.peak_memory == 412_000_002
    assert dict(train.hosts) == {"node7": 3}
    assert found.versions["torch"] == ["2.5.1"]


def test_the_best_unit_of_each_baseline_stands_beside_feature_and_gene() -> None:
    rows = [
        {"label": "B|cell", "kind": kind, "unit": unit, "name": name, "auroc_train": 0.9, "auroc": auroc, "n_items": 9,
         "n_rest": 20, "low": 0.5, "high": 1.0, "q_value": 0.01, "layer": 2}
        for kind, unit, name, auroc in (
            ("feature", 7, "7", 0.99), ("unit", 3, "CD79A", 0.98), ("neuron", 15, "7-", 0.97), ("untrained", 4, "4", 0.55),
        )
    ]  # fmt: skip
    wide = side_by_side(pd.DataFrame(rows))
    text = beside_baselines(wide, "*Unit of inference: one held-out cell.*")
    assert text.count("*Unit of inference: one held-out cell.*") == 1
    assert "| Cell type | Feature | Gene | Raw neuron | Untrained model's feature |" in text, (
        "no column without numbers"
    )
    assert "| 0.990 | CD79A 0.980 | 7- 0.970, layer 2 | 4 0.550, layer 2 |" in text
    assert "validation.untrained_cells" in text
    alone = side_by_side(pd.DataFrame(rows[:2]))
    assert beside_baselines(alone, "*Unit*") == ""
