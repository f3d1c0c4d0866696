"""Features over layers in the report: sentences, tables, figures and panel, with any part missing, empty or damaged."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_report
from planted_run import Plan, PlantedRun, planted_run
from test_report_document import assert_valid, problem_free

from sae_genomics.artifacts import Table
from sae_genomics.artifacts.cross_layer import ATTRIBUTION, FATES, MATCHES, PERSISTENCE
from sae_genomics.artifacts.modules import COACTIVATION, MODULE_SUMMARY, MODULES, NOVELTY, VARIANCE
from sae_genomics.report import collect, section_cross_layer
from sae_genomics.report.collect import LayerResults, RunResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contributions.cross_layer import CROSS_LAYER
from sae_genomics.report.cross_layer import between_modules, passages
from sae_genomics.report.dashboard_cross_layer import CrossLayerPanel
from sae_genomics.report.dashboard_panel import PanelLayer, PanelSettings
from sae_genomics.report.wording import CELL_WORDING
from sae_genomics.stages import stage_named

N = 40  # features of each layer
TABLES = (MATCHES, FATES, PERSISTENCE, ATTRIBUTION, COACTIVATION, MODULES, MODULE_SUMMARY, VARIANCE, NOVELTY)


def _frames(layers: list[int]) -> dict[str, pd.DataFrame]:
    """Feature i matches feature i of the next layer when i < 10; 0 to 4 are a module; 20 is a candidate."""
    steps = list(pairwise(layers))
    matched = np.arange(10)
    matches = pd.concat(
        [pd.DataFrame({"layer_a": a, "feature_a": matched, "layer_b": b, "feature_b": matched, "correlation": 0.8, "null": 0.2,
                       "linked": matched < 9, "mutual": True, "assigned": True, "cosine": 0.9, "top_units_jaccard": 0.5}) for a, b in steps]
    )  # fmt: skip
    feature = np.arange(N)
    fates = []
    for index, layer in enumerate(layers):
        rows = pd.DataFrame({column.name: [None] * N for column in FATES.columns})
        before = np.where(feature < 10, "persistent", "born") if index else np.full(N, None)
        after = np.where(feature < 10, "persistent", "died") if index < len(layers) - 1 else np.full(N, None)
        rows = rows.assign(
            layer=layer,
            feature=feature,
            before=before,
            after=after,
            n_parents=1,
            n_children=1,
            chain=feature,
            firing_rate=0.1,
        )
        fates.append(rows.assign(fate=np.where(feature < 10, "persistent", "born" if index else "died")))
    persistence = pd.DataFrame(
        [{"layer_a": a, "layer_b": b, "n_features": N, "share": 0.25, "ceiling": 0.65, "floor_permuted": 0.05, "floor_untrained": 0.08,
          "relative": 1 / 3, "by_unit": 0.0, "mean_correlation": 0.4} for a, b in steps]
    )  # fmt: skip
    attribution = pd.DataFrame(
        [{"layer_l": a, "feature_i": i, "layer_m": b, "feature_j": 1, "edge": i < 2, "weight": 1.0 + i, "share": 0.5 - 0.1 * i, "exact": 1.5 + i,
          "null": 0.3, "above_null": True, "p_value": 0.001, "q_value": 0.01, "n_items": 12, "n_agree": 11} for a, b in steps for i in range(6)]
    )  # fmt: skip
    pairs = [(a, 0, b, 1) for a, b in steps] + [(layer, 0, layer, 1) for layer in layers]
    coactivation = pd.DataFrame(pairs, columns=["layer_a", "feature_a", "layer_b", "feature_b"]).assign(
        n_both=40.0, expected=10.0, pmi=1.9, g=80.0, largest_null=20.0, p_value=1e-5, q_value=1e-3
    )
    modules = pd.concat(
        [pd.DataFrame({"layer": layer, "feature": range(5), "module": 0, "resolution": 1.0, "consensus": 0.9, "n_edges": 4}) for layer in layers]
    )  # fmt: skip
    summary = pd.DataFrame(
        [{"layer": layer, "module": module, "name": "T cell | <b>", "n_named": 3 - 3 * module, "size": 5 - module, "n_edges": 8, "units": "CD3D, CD3E",
          "resolution": 1.0, "consensus": 0.9, "n_items": 80, "score": 1.25 - module, "null_mean": 0.0, "null_max": 0.31, "p_value": 0.005,
          "q_value": 0.005 + 0.5 * module, "above_null": module == 0, "modularity": 0.4, "modularity_null": 0.3, "largest_null": 6.0}
         for layer in layers for module in range(2)]
    )  # fmt: skip
    variance = pd.DataFrame(
        [{"layer": layer, "method": method, "k": k, "explained_heldout": share * k / 4, "low": share * k / 4 - 0.01, "high": share * k / 4 + 0.01,
          "n_components": 64, "n_tokens": 900, "n_items": 80, "n_groups": None}
         for layer in layers for k in (1, 4) for method, share in (("features", 0.8), ("pca", 0.5), ("pca_per_token", 0.7), ("ica", 0.6), ("random", 0.2))]
    )  # fmt: skip
    novelty = pd.DataFrame(
        [{"layer": layer, "feature": feature, "seed_feature": 3, "seed_correlation": 0.9, "chance_correlation": 0.1, "seed_cosine": 0.95,
          "chance_cosine": 0.5, "seed_match": feature < 22, "predicts": "CD19+ B", "auroc": 0.93, "auroc_low": 0.81, "auroc_high": 0.97, "q_value": 0.001,
          "candidate": feature == 20, "cluster": 0 if feature == 20 else None, "units": "CD79A, CD74"} for layer in layers for feature in (20, 21, 22)]
    )  # fmt: skip
    frames = (matches, pd.concat(fates), persistence, attribution, coactivation, modules, summary, variance, novelty)
    return {table.file: frame for table, frame in zip(TABLES, frames, strict=True)}


def _write(run: PlantedRun) -> None:
    folder = run.results / "cross_layer"
    folder.mkdir(parents=True, exist_ok=True)
    frames = _frames(run.layers)
    for table in TABLES:
        table.write(folder / table.file, frames[table.file])
    stage = stage_named("cross_layer")
    facts = {
        "started": "2026-01-01T10:00:00+00:00",
        "seconds": 9.0,
        "peak_memory_bytes": 1,
        "host": "node7",
        "job": None,
        "versions": {},
    }
    run.write_manifest(stage, 0, facts)


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    plan = Plan(layers=3, d_sae=N, n_cells=120)
    run = planted_run(Path(tmp_path_factory.mktemp("layered")), plan, cross_layer={"enabled": True})
    _write(run)
    write_report(run)
    return run


def _section(run: PlantedRun) -> str:
    text = run.report_file.read_text()
    return text.split("## Features over layers")[1].split("\n## ")[0] if "## Features over layers" in text else ""


def test_the_first_paragraph_says_share_ceiling_floor_and_modules(layered: PlantedRun) -> None:
    text = layered.report_file.read_text()
    assert_valid(layered, text)
    assert problem_free(text)
    opening = text.split("## What was run")[0]
    said = next(line for line in opening.split("\n") if "**Over layers.**" in line)
    assert "25.0 % of a layer's features have a match in the next layer" in said
    assert "share 65.0 %" in said
    assert "with gene tokens permuted within their gene 5.0 % match" in said
    assert "8.0 % match features of an autoencoder on an untrained model" in said
    assert "3 of 6 modules of features also fire together on held-out cells" in said


def test_tables_say_what_the_files_say(layered: PlantedRun) -> None:
    part = _section(layered)
    assert "| 0 → 1 | 40 | 25.0 % | 65.0 % | 5.0 % | 8.0 % | 33.3 % |" in part
    assert "| 1 → 2 | 10 | 0 | 0 | 0 | 30 | 30 |" in part
    assert r"| 2 | 0 | T cell \| &lt;b&gt; (3 of 5) | 5 | CD3D, CD3E | 1.25 | 0.31 | 0.005 | 0.90 |" in part
    assert part.count("CD3D, CD3E") == 3  # modules at chance are not listed
    assert "| 1 | 4 | 80.0 % (79.0 % to 81.0 %) | 70.0 % | 50.0 % | 60.0 % | 20.0 % |" in part
    assert "9 active features have no name. A second seed finds 6 of them again" in part
    assert "3 do both: these are candidates, in 1 groups" not in part
    assert "3 do both: these are candidates, in 1 group that shares genes" in part
    assert "rank correlation of 1.00" in part
    assert part.count("*Unit of inference") == 5
    for name in ("layers_flow", "layers_modules", "layers_variance"):
        assert (layered.figures_dir / f"{name}.png").stat().st_size > 5000
        assert f"(figures/{name}.png)" in part


def _contents(run: PlantedRun, results: RunResults) -> Contents:
    return Contents(run, run_results=results)


def _all_said(contents: Contents) -> str:
    """Everything that the contribution makes of its tables: texts, figures, arrays of the panel."""
    for draw in CROSS_LAYER.figures(contents).values():
        draw()
    run, features = contents.run, pd.DataFrame({"feature": np.arange(N)})
    panel = CrossLayerPanel(PanelSettings(contents.config, 3 * N, 3, None, contents.run_results))
    for layer in run.layers:
        panel.add(PanelLayer(LayerResults(layer), features, pd.Series(np.arange(N)), layer, 0))
    assert all(len(values) == 3 * N for name, values in panel.blocks().items() if name.startswith("columns."))
    assert set(panel.meta()) == {"fates", "modules", "module_facts"}
    said = CROSS_LAYER.findings(contents)[0].text
    return said + section_cross_layer.section(contents)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.file)
def test_each_part_may_be_missing_or_empty(layered: PlantedRun, table: Table) -> None:
    frames = {each.file.removesuffix(".parquet"): _frames(layered.layers)[each.file] for each in TABLES}
    name = table.file.removesuffix(".parquet")
    whole = _all_said(_contents(layered, RunResults(tables=frames)))
    without = _all_said(_contents(layered, RunResults(tables={key: frames[key] for key in frames if key != name})))
    nothing = {name: table.schema.empty_table().to_pandas()}
    empty = _all_said(_contents(layered, RunResults(tables=frames | nothing, notes={name: "there was <nothing>"})))
    for text in (whole, without, empty):
        assert "nan" not in text.split()
        assert "<nothing>" not in text
    assert whole.count("###") >= without.count("###") >= 4
    alone = _all_said(_contents(layered, RunResults(tables=nothing, notes={name: "there was <nothing>"})))
    assert "nan" not in alone.split()


def test_without_any_table_nothing_is_said(layered: PlantedRun) -> None:
    contents = _contents(layered, RunResults())
    assert _all_said(contents) == ""
    assert all(draw() is None for draw in CROSS_LAYER.figures(contents).values())


def test_the_nouns_are_those_of_the_data(layered: PlantedRun) -> None:
    frames = {each.file.removesuffix(".parquet"): _frames(layered.layers)[each.file] for each in TABLES}
    nouns = replace(CELL_WORDING.nouns, item="protein", items="proteins", unit="amino acid", units="amino acids", token="residue",
                    tokens="residues", label="family", labels="families")  # fmt: skip
    contents = replace(_contents(layered, RunResults(tables=frames)), wording=replace(CELL_WORDING, nouns=nouns))
    text = _all_said(contents)
    assert "with residues permuted within their amino acid 5.0 % match" in text
    assert "tell a family apart on held-out proteins" in text
    assert not {"cell", "cells", "gene", "genes"} & set(text.replace("T cell", "").replace(",", " ").split())


def test_a_damaged_table_is_named_and_the_rest_is_read(layered: PlantedRun, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "cross_layer"
    for table in TABLES:
        table.write(folder / table.file, _frames(layered.layers)[table.file])
    for table in (MATCHES, MODULES):
        (folder / table.file).write_bytes(b"PAR1 no more")
    PERSISTENCE.write(folder / PERSISTENCE.file, PERSISTENCE.schema.empty_table().to_pandas(), note="why")
    monkeypatch.setattr(collect, "done_files", lambda run, unit, task: set(folder.iterdir()))
    monkeypatch.setattr(layered.paths, "results", tmp_path)
    problems = collect.Problems()
    found = collect.read_run_tables(layered, problems, CROSS_LAYER.run_tables)
    assert {Path(each.what).name for each in problems.found} == {MATCHES.file, MODULES.file}
    assert set(found.tables) == {table.file.removesuffix(".parquet") for table in TABLES} - {"matches", "modules"}
    assert found.notes == {"persistence": "why"}
    assert found.inference["fates"].unit.startswith("one feature")


def test_a_run_without_the_stage_says_nothing_of_it(finished: PlantedRun) -> None:
    assert "Features over layers" not in finished.report_file.read_text()


def test_numbers_behind_the_figures() -> None:
    frames = _frames([0, 2, 5])
    results = RunResults(tables={"fates": frames[FATES.file], "persistence": frames[PERSISTENCE.file]})
    steps = passages(results)
    assert [(each.first, each.second) for each in steps] == [(0, 2), (2, 5)]
    assert steps[0].left == {"persistent": 10, "died": 30}
    assert steps[1].right == {"persistent": 10, "born": 30}
    assert passages(RunResults(tables={"fates": frames[FATES.file]}))[0].share is None
    both = RunResults(tables={"coactivation": frames[COACTIVATION.file], "modules": frames[MODULES.file]})
    between = between_modules(both)
    assert between[["layer_a", "module_a", "layer_b", "module_b"]].to_numpy().tolist() == [[0, 0, 2, 0], [2, 0, 5, 0]]
    assert between["share"].tolist() == [1 / 25, 1 / 25]
    assert between_modules(RunResults()).empty


@pytest.mark.browser
@pytest.mark.skipif(not (Path("/usr/bin/chromium").exists() or os.environ.get("REQUIRE_ALL")), reason="needs Chromium")
def test_the_panel_shows_fate_matches_and_module(layered: PlantedRun, browser) -> None:
    browser.open(layered.dashboard_file, "#layer=1&feature=3")
    panel = browser.one("#panel-cross-layer").text
    assert "The layer before has it too; the next layer has it too." in panel
    assert "layer 0 · feature 3" in panel
    assert "layer 2 · feature 3" in panel
    assert "0.80" in panel
    assert "T cell | <b> (layer 1, module 0)" in panel
    assert "2^1.25" in panel
    assert panel.count("Unit of inference") == 2
    browser.one("#panel-cross-layer a[href='#layer=2&feature=3']").click()
    browser.until(lambda: "Layer 2 · feature 3" in browser.one("#panel-title").text)
    browser.open(layered.dashboard_file, "#layer=1&feature=30")
    panel = browser.one("#panel-cross-layer").text
    assert "The layer before has no such feature; the next layer has no such feature." in panel
    assert "Fires together" not in panel
    assert browser.errors() == []
