"""What people copy to go on from a run gives right numbers, however the activations are stored."""

from __future__ import annotations

import contextlib
import io
import json
import re
from typing import Any

import matplotlib
import pytest
import torch
import yaml

from sae_genomics.activations import read_activations, read_units
from sae_genomics.cli import main
from sae_genomics.config import load_config
from sae_genomics.run import Run
from tests.pipeline.conftest import ROOT, small_values

matplotlib.use("Agg")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["none", "unit"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run whose activations are stored as compressed bfloat16, with each `sae.centre`."""
    folder = tmp_path_factory.mktemp("packed")
    values = small_values(
        folder,
        data={"max_cells": 200},
        model={"layers": [2]},
        activations={"dtype": "bfloat16", "compression": "zstd", "cells_per_shard": 100},
        sae={"steps": 300, "centre": request.param},
    )
    config = folder / "packed.yaml"
    config.write_text(yaml.safe_dump(values))
    assert main(["pipeline", str(config), "--local"]) == 0
    return Run(load_config(config), config)


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_notebook_runs(packed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAE_RESULTS", str(packed.results))
    monkeypatch.setenv("SAE_CHECKPOINTS", str(packed.checkpoints))
    notebook = json.loads((ROOT / "notebooks" / "explore_a_run.ipynb").read_text())
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
    fvu = json.loads((packed.sae_dir(2) / "metrics.json").read_text())["train_fvu"]
    assert float(names["error"]) == pytest.approx(fvu, abs=0.15), "the SAE fits what was read"
    assert re.search(r"\d features a token", printed.getvalue())


@pytest.mark.parametrize("page", ["activations.md", "training.md"])
def test_the_documentation_runs(packed: Run, page: str) -> None:
    names: dict[str, Any] = {}
    for block in python_blocks((ROOT / "docs" / page).read_text()):
        code = block.replace("checkpoints/demo/", f"{packed.checkpoints}/").replace("layer_03", "layer_02")
        exec(code, names)
    expected = read_activations(packed.activations_file(2, 0), slice(0, 1000))
    assert abs(expected).max() < 1000, "numbers, not the bits of numbers"
    assert (names["rows"] == expected).all()


def test_the_report_runs(packed: Run) -> None:
    block = next(each for each in python_blocks(packed.report_file.read_text()) if "sae_lens" in each)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["active"].shape == (1000, 128)
    assert torch.isfinite(names["active"]).all()
    assert (names["active"] > 0).sum(1).float().mean() <= 8
    assert ("centre(" in block) == (packed.config.sae.centre == "unit")
    special = read_units(packed.tokens_file(0), slice(0, 1000)) == read_units(packed.tokens_file(0), slice(0, 1))[0]
    x = torch.from_numpy(names["rows"])[torch.from_numpy(~special)]
    sae = names["sae"]
    error = (sae(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert float(error) < 0.7, "the SAE fits what it is given"
