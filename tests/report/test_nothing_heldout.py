"""A report on a run without held-out cells, and on autoencoders that are to be read with care."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_report
from planted_run import Plan, PlantedRun, planted_run

from sae_genomics.artifacts import CELL_TYPE_BASELINES, FEATURE_CELL_TYPES, FEATURES
from sae_genomics.atomic import read_json, write_json
from sae_genomics.stages import stage_named

UNMEASURED = {"fvu": None, "explained_variance": None, "l0": None, "dead_share": None, "heldout_tokens": 0}


def change_metrics(run: PlantedRun, **values: Any) -> None:
    for task, layer in enumerate(run.layers):
        path = run.sae_dir(layer) / "metrics.json"
        write_json(path, {**read_json(path), **values})
        run.write_manifest(stage_named("train"), task, {})


@pytest.fixture
def unheld(tmp_path: Path) -> PlantedRun:
    """The planted run as it would be with data.heldout_fraction 0."""
    run = planted_run(tmp_path, Plan(layers=2))
    write_json(run.plan_file, {**read_json(run.plan_file), "n_heldout": 0})
    run.write_manifest(stage_named("prepare"), 0, {})
    change_metrics(run, **UNMEASURED, train_fvu=0.07, train_l0=15.0, train_dead_share=0.02, train_tokens=4321)
    for task, layer in enumerate(run.layers):
        folder = run.layer_results(layer)
        for table, gone in (
            (FEATURES, ["best_cell_type_auroc", "best_cell_type_q_value", "heldout_firing_rate"]),
            (FEATURE_CELL_TYPES, ["auroc", "q_value", "p_value", "effect_size", "mean_in", "mean_out"]),
            (CELL_TYPE_BASELINES, ["auroc"]),
        ):
            frame = table.read(folder / table.file)
            frame[gone] = np.nan
            if "n_cells" in frame and table is not FEATURES:
                frame["n_cells"] = 0
            table.write(folder / table.file, frame)
        run.write_manifest(stage_named("associate"), task, {})
    return run


def test_nothing_is_called_held_out(unheld: PlantedRun) -> None:
    text = write_report(unheld)
    opening = text.split("\n## ")[0]
    assert "**No cell is held out.**" in opening
    assert "cannot say how faithful the features are on other cells" in opening
    assert "On the training cells themselves the features reproduce 93 %" in opening
    for words in (
        "Measured on held-out cells",
        "are from held-out cells",
        "held-out cells have",
        "too few held-out cells",
    ):
        assert words not in text


def test_what_training_cells_tell_is_shown(unheld: PlantedRun) -> None:
    text = write_report(unheld)
    faithful = text.split("## How faithful the features are\n")[1].split("\n## ")[0]
    assert "| 0 | 0.070 |" in faithful
    assert "| 4,321 |" in faithful
    types = text.split("## Features that tell cell types apart\n")[1].split("\n## ")[0]
    assert "Training AUROC" in types
    baselines = CELL_TYPE_BASELINES.read(unheld.layer_results(0) / CELL_TYPE_BASELINES.file)
    best = baselines[baselines["kind"] == "feature"]["auroc_train"].max()
    rows = [line for line in types.split("\n") if line.startswith("| ") and ", layer " in line]
    assert len(rows) == baselines["cell_type"].nunique()
    areas = [float(line.split(" | ")[3]) for line in rows]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] >= round(best, 3)
    assert "too high" in types
    page = unheld.dashboard_file.read_text()
    assert "No cell is held out: FVU and L0 are of training cells" in page
    assert '"fvu":0.07,' in page


def test_a_doubtful_autoencoder_is_named_where_it_is_shown(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=1))
    assert "Read with care" not in write_report(run)
    change_metrics(run, fvu=0.62, l0=37.0, architecture="batchtopk")
    run.manifest_file(stage_named("report"), 0).unlink(missing_ok=True)
    text = write_report(run)
    assert "**Read with care**: layer 0 (The FVU is 0.62" in text.split("\n## ")[0]
    faithful = text.split("## How faithful the features are\n")[1].split("\n## ")[0]
    assert "- **Layer 0.** The FVU is 0.62: the features miss more" in faithful
    assert "- **Layer 0.** L0 is 37.0, sae.k is 16: the threshold" in faithful
    page = run.dashboard_file.read_text()
    assert "Layer 0: The FVU is 0.62" in page
    assert "Layer 0: L0 is 37.0" in page
