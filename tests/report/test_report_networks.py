"""Networks and regulons in the report: tables, sentences and figures, and nothing of them without a database."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import write_report
from planted_run import Plan, PlantedRun, planted_run
from test_report_document import assert_valid, problem_free

from sae_genomics.artifacts import FEATURE_NETWORK, NETWORK_NULLS, REGULON_EDGES, REGULON_NULLS
from sae_genomics.report.network import positions

NAMES = ("network.png", "network_best.png", "regulons.png")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    small = {"network_draws": 2000, "shuffles": 3}
    run = planted_run(
        Path(tmp_path_factory.mktemp("networks")),
        Plan(networks=True),
        validation=small,
        associations={"min_gene_tokens": 1},
    )
    write_report(run)
    return run


def test_tables_say_what_the_files_say(networks: PlantedRun) -> None:
    text = networks.report_file.read_text()
    assert_valid(networks, text)
    assert problem_free(text)
    for layer in networks.layers:
        folder = networks.layer_results(layer)
        nulls = NETWORK_NULLS.read(folder / NETWORK_NULLS.file)
        own = nulls[nulls["source"] == "features"].iloc[0]
        part = text.split(f"### Layer {layer}: networks")[1].split("###")[0]
        row = next(line for line in part.split("\n") if line.startswith("| string, physical | SAE features"))
        assert own["n_found"] > 10
        assert f"| {own['n_units']} | {own['n_found']} ({100 * own['share']:.1f} %) |" in row
        assert re.search(rf"\| {own['n_edges']:,} \| {own['n_expected']:,.0f} \|", row)
        regulons = REGULON_NULLS.read(folder / REGULON_NULLS.file).iloc[0]
        part = text.split(f"### Layer {layer}: regulons")[1].split("\n##")[0]
        row = next(line for line in part.split("\n") if line.startswith("| trrust | SAE features"))
        assert f"{regulons['n_own_factor']} of {regulons['n_pairs']} | {regulons['expected_own_factor']:.1f} |" in row
        edges = REGULON_EDGES.read(folder / REGULON_EDGES.file)
        found = edges[(edges["source"] == "features") & (edges["factors"] == "held_out")].iloc[0]
        assert f"| {found['auroc']:.3f} |" in part
        assert part.count("*Unit of inference") == 2


def test_the_opening_says_both(networks: PlantedRun) -> None:
    opening = networks.report_file.read_text().split("## What was run")[0]
    said = next(line for line in opening.split("\n") if "**Networks.**" in line)
    rows = [NETWORK_NULLS.read(networks.layer_results(layer) / NETWORK_NULLS.file).iloc[0] for layer in networks.layers]
    low, high = (end(100 * row["share"] for row in rows) for end in (min, max))
    assert f"**Networks.** {low:.1f} % to {high:.1f} % of the features (over 3 layers) have more physical pairs" in said
    assert "Above every draw in layers 0, 1 and 2." in said
    assert "Not above" not in said
    assert "**Regulons.**" in opening


def test_figures_are_drawn_and_go_with_the_database(networks: PlantedRun, tmp_path: Path) -> None:
    text = networks.report_file.read_text()
    for name in NAMES:
        (path,) = networks.results.rglob(name)
        assert path.stat().st_size > 10_000
        assert name in text


def test_without_a_database_nothing_is_said(finished: PlantedRun) -> None:
    text = finished.report_file.read_text()
    assert "Features whose genes work together" not in text
    assert "transcription factor" not in text
    assert not any(list(finished.results.rglob(name)) for name in NAMES)
    note = FEATURE_NETWORK.note(finished.layer_results(0) / FEATURE_NETWORK.file)
    assert note is not None
    assert "--only string" in note


def test_partners_are_drawn_close() -> None:
    first, second = np.array([0, 1, 0, 3, 4, 3]), np.array([1, 2, 2, 4, 5, 5])  # two triangles
    place = positions(6, first, second)
    assert np.abs(place).max() <= 1
    length = np.sqrt(((place[:, None] - place[None]) ** 2).sum(axis=2))
    within, between = length[first, second].max(), length[:3, 3:].min()
    assert within < between
    assert length[np.triu_indices(6, 1)].min() > 0.05
    assert positions(0, first[:0], second[:0]).shape == (0, 2)
