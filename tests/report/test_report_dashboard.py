"""What stands in dashboard.html, read back without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_run import MARKUP, PlantedRun
from scipy.sparse import csr_matrix, random

from sae_genomics.artifacts import FEATURE_CELL_TYPES, FEATURE_GENES, FEATURE_TERMS, FEATURES, ITEM_NAMES
from sae_genomics.config import parse_config
from sae_genomics.report import dashboard, dashboard_arrays, dashboard_items, dashboard_page
from sae_genomics.report.cells import CellSample, read_activations, sample_cells
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contributions import contributions
from sae_genomics.report.dashboard_packing import unpacked_array, unpacked_texts
from sae_genomics.report.dashboard_panel import PanelSettings
from sae_genomics.run import Run


class _Page(HTMLParser):
    """Scripts by id, and every attribute that could load something."""

    def __init__(self, text: str):
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.loads: list[str] = []
        self.tags: list[str] = []
        self._id: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.tags.append(tag)
        self.loads += [str(named[name]) for name in ("src", "href", "action", "data") if name in named]
        assert not [name for name in named if name.startswith("on") or name == "style"]
        self._id = named.get("id", "") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._id is not None:
            self.scripts[self._id] = self.scripts.get(self._id, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._id = None


def unpack(page: _Page) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    blocks, meta = {}, json.loads(page.scripts["meta"])
    for name, text in page.scripts.items():
        kind, _, rest = name.partition(":")
        if kind == "block":
            blocks[rest] = unpacked_array(json.loads(text))
        elif kind == "texts":
            meta[rest] = unpacked_texts(json.loads(text))
    return meta, blocks


def test_page_loads_nothing_and_trusts_only_its_own_code(finished: PlantedRun) -> None:
    text = finished.dashboard_file.read_text()
    page = _Page(text)
    assert page.loads == ["data:,"]
    links = [each["page"] for name in ("term_links", "gene_links") for each in json.loads(page.scripts["meta"])[name]]
    assert links
    assert all(link.startswith("https://") for link in links)
    addresses = re.findall(
        r"https?:", text.replace("http://www.w3.org/2000/svg", "")
    )  # that one is the name of a language
    assert len(addresses) == len(links)  # addresses are data, for links that a reader follows
    assert set(page.tags).isdisjoint({"iframe", "object", "embed", "img", "base", "audio", "video"})
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", text, flags=re.S)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_names_cannot_leave_their_json(finished: PlantedRun) -> None:
    text = finished.dashboard_file.read_text()
    page = _Page(text)
    meta, _ = unpack(page)
    for name in MARKUP:
        assert name in meta["unit_names"]
    assert MARKUP[0] in meta["terms"]
    for script, content in page.scripts.items():
        if script:  # all but the code itself
            assert "<" not in content
    assert len(re.findall(r"<script", text)) == len(page.scripts)


def test_template_marks_within_names_stay_text() -> None:
    page = dashboard_page.assemble({"title": "{{DATA}} {{SCRIPT}}", "unit_names": ["{{STYLE}}"]}, {})
    assert "<title>{{DATA}} {{SCRIPT}}</title>" in page
    assert json.loads(_Page(page).scripts["meta"])["unit_names"] == ["{{STYLE}}"]


def test_columns_are_the_tables(finished: PlantedRun) -> None:
    meta, blocks = unpack(_Page(finished.dashboard_file.read_text()))
    tables = [
        FEATURES.read(finished.layer_results(layer) / FEATURES.file).assign(layer=layer) for layer in finished.layers
    ]
    features = pd.concat(tables, ignore_index=True)
    assert meta["n_features"] == len(features)
    for name, column in (("layer", "layer"), ("feature", "feature"), ("n_items", "n_cells")):
        assert np.array_equal(blocks[f"columns.{name}"], features[column])
    for name, error in (("firing_rate", 1e-6), ("specificity", 1e-6), ("max_activation", 3e-4)):
        assert np.allclose(blocks[f"columns.{name}"], features[name], rtol=error, equal_nan=True)
    assert np.allclose(blocks["columns.auroc"], features["best_cell_type_auroc"], rtol=1e-6, equal_nan=True)
    best = [meta["labels"][code] if code >= 0 else None for code in blocks["columns.label"]]
    assert best == features["best_cell_type"].where(features["best_cell_type"].notna(), None).tolist()
    with np.errstate(divide="ignore"):
        expected = np.maximum(np.log10(features["best_cell_type_q_value"]), -320)
    assert np.allclose(blocks["columns.label_log10q"], expected, rtol=1e-5, equal_nan=True)


def test_lists_are_the_tables(finished: PlantedRun) -> None:
    meta, blocks = unpack(_Page(finished.dashboard_file.read_text()))
    gene_end, type_end, term_end = (
        np.cumsum(blocks[f"{name}.length"].astype(int)) for name in ("units", "labels", "terms")
    )
    overlap_end = np.cumsum(blocks["overlaps.length"].astype(int))
    layer, wanted = finished.layers[1], len(finished.layers[:1]) * 200
    folder = finished.layer_results(layer)
    genes, types, terms = (
        table.read(folder / table.file) for table in (FEATURE_GENES, FEATURE_CELL_TYPES, FEATURE_TERMS)
    )
    for feature in range(0, 200, 7):
        row = wanted + feature
        here = slice(gene_end[row] - int(blocks["units.length"][row]), gene_end[row])
        own = genes[(genes["feature"] == feature) & ((genes["rank_score"] <= 10) | (genes["rank_specificity"] <= 10))]
        own = own.sort_values("rank_specificity")
        assert [meta["unit_ids"][code] for code in blocks["units.unit"][here]] == own["gene_id"].tolist()
        assert [meta["unit_names"][meta["unit_name"][code]] for code in blocks["units.unit"][here]] == own[
            "gene_symbol"
        ].tolist()
        assert np.allclose(blocks["units.score"][here], own["score"], rtol=3e-3)
        assert np.allclose(blocks["units.specificity"][here], own["specificity"], rtol=0, atol=0.0051)
        here = slice(type_end[row] - int(blocks["labels.length"][row]), type_end[row])
        own = types[types["feature"] == feature].sort_values("auroc", ascending=False, kind="stable").head(8)
        assert [meta["labels"][code] for code in blocks["labels.label"][here]] == own["cell_type"].tolist()
        assert np.allclose(blocks["labels.auroc"][here], own["auroc"], rtol=0, atol=0.0006)
        start = term_end[row] - int(blocks["terms.length"][row])
        own = terms[terms["feature"] == feature].sort_values(["q_matched", "p_value"], kind="stable")
        assert [meta["terms"][code] for code in blocks["terms.term"][start : term_end[row]]] == own["term"].tolist()
        for name, column in (("overlap", "n_overlap"), ("size", "n_term")):
            assert blocks[f"terms.{name}"][start : term_end[row]].tolist() == own[column].tolist()
        for name, column in (("odds", "odds_ratio"), ("odds_low", "odds_ratio_low")):
            assert np.allclose(blocks[f"terms.{name}"][start : term_end[row]], own[column], rtol=0.012)
        expected = own["n_top"] * own["n_term"] / own["n_background"]
        assert np.allclose(blocks["terms.expected"][start : term_end[row]], expected, rtol=0.012)
        for name, column in (("log10q", "q_value"), ("log10q_matched", "q_matched")):
            assert np.allclose(blocks[f"terms.{name}"][start : term_end[row]], np.log10(own[column]), atol=0.0101)
        assert np.isnan(
            blocks["terms.log10q_source"][start : term_end[row]]
        ).all()  # decides as q over all sources does
        first = int(np.cumsum(blocks["shared.length"].astype(int))[row] - blocks["shared.length"][row])
        for entry, text in enumerate(own["genes"], start):
            positions = blocks["overlaps.position"][
                overlap_end[entry] - int(blocks["overlaps.length"][entry]) : overlap_end[entry]
            ]
            assert ",".join(meta["term_genes"][blocks["shared.gene"][first + place]] for place in positions) == text


def test_cells_are_those_of_features_h5ad(finished: PlantedRun) -> None:
    _, blocks = unpack(_Page(finished.dashboard_file.read_text()))
    sample = sample_cells(finished)
    for layer in finished.layers:
        dense = read_activations(finished.layer_results(layer) / "features.h5ad", sample).toarray()
        length = blocks[f"cells.{layer}.length"].astype(int)
        assert np.array_equal(length, np.minimum((dense > 0).sum(0), dashboard_items.MOST_CELLS))
        feature = np.repeat(np.arange(dense.shape[1]), length)
        shown = blocks[f"cells.{layer}.level"] / 255 * blocks[f"cells.{layer}.largest"][feature]
        exact = dense[blocks[f"cells.{layer}.cell"], feature]
        assert (np.abs(shown - exact) <= blocks[f"cells.{layer}.largest"][feature] / 255).all()


@pytest.mark.parametrize("values", [[0.0, 1.0, -3.25, 1e-30, 123456.789], [np.nan, np.inf, -np.inf, 3.4e38]])
def test_shortened_floats_keep_three_digits(values: list[float]) -> None:
    short = dashboard_arrays.shortened(np.array(values))
    assert np.allclose(short, np.array(values, np.float32), rtol=2.5e-4, atol=0, equal_nan=True)


def cells_dashboard(n_features: int, n_layers: int, sample: CellSample | None) -> dashboard.Dashboard:
    config = parse_config({"data": {"path": "cells.h5ad"}}, "test")
    settings = PanelSettings(config, n_features, n_layers, sample)
    return dashboard.Dashboard([each.panel(settings) for each in contributions(Run(config)) if each.panel is not None])


def wide_layer(n_features: int, layer: int) -> LayerResults:
    features = pd.DataFrame({column.name: pd.Series(np.zeros(n_features)) for column in FEATURES.columns})
    features = features.rename(columns=ITEM_NAMES)
    features["feature"], features["top_unit"], features["best_label"] = np.arange(n_features), "A", None
    features["specificity"] = np.arange(n_features)[::-1] / n_features
    return LayerResults(layer, {}, {"features": features})


def test_page_keeps_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_features, n_cells = 400, 600
    rng = np.random.default_rng(0)
    matrix = csr_matrix(random(n_cells, n_features, 0.5, format="csr", dtype=np.float32, random_state=rng))
    sample = CellSample(
        np.arange(n_cells),
        [str(n) for n in range(n_cells)],
        np.zeros(n_cells, np.int32),
        np.zeros(n_cells, bool),
        ["a"],
        n_cells,
    )
    for target, complete in ((2_000_000, True), (300_000, False), (90_000, False)):
        monkeypatch.setattr(dashboard_items, "TARGET_BYTES", target)
        made = cells_dashboard(n_features, 1, sample)
        wide = wide_layer(n_features, 0)
        wide.activations = matrix
        made.add(wide)
        made.write(tmp_path / "page.html", {"title": "t"})
        meta, blocks = unpack(_Page((tmp_path / "page.html").read_text()))
        template = 70_000
        assert (tmp_path / "page.html").stat().st_size < target + template
        kept = blocks["cells.0.length"].astype(int)
        firing = np.bincount(matrix.indices, minlength=n_features)
        if complete:
            assert np.array_equal(kept, np.minimum(firing, dashboard_items.MOST_CELLS))
            assert meta["cells"]["without"] == 0
        else:
            assert kept.sum() < firing.sum()
        if meta["cells"]["without"]:
            assert meta["cells"]["without"] == (kept == 0).sum()
            assert (kept[kept > 0] == dashboard_items.FEWEST_CELLS).all()
            assert kept[: (kept > 0).sum()].all()  # the most specific features, which stand first, keep theirs


def test_layer_that_fails_half_way_leaves_no_trace(tmp_path: Path) -> None:
    made = cells_dashboard(20, 2, None)
    made.add(wide_layer(10, 0))
    broken = wide_layer(10, 1)
    broken.tables["terms"] = pd.DataFrame(
        {"feature": [0], "collection": ["c"], "term": ["t"], "q_value": [0.1]}
    )  # no p_value
    with pytest.raises(KeyError):
        made.add(broken)
    made.write(tmp_path / "page.html", {"title": "t"})
    meta, blocks = unpack(_Page((tmp_path / "page.html").read_text()))
    assert meta["layer_numbers"] == [0]
    assert {
        len(values) for name, values in blocks.items() if name.startswith("columns.") or name.endswith("s.length")
    } <= {10, 0}
