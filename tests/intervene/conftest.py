"""Small runs up to their SAEs: cells, proteins, and cells of planted truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sae_genomics.config import load_config
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.sae.load import Encoder
from sae_genomics.stages import stage_named
from tests.pipeline.conftest import ROOT, small_values


def made(folder: Path, values: dict[str, Any]) -> Run:
    """A run whose layers have an SAE, and its config.yaml."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    run = Run(load_config(file), file)
    for name in ("prepare", "extract", "train"):
        for task in range(run.n_tasks(stage_named(name))):
            execute(run, stage_named(name), task)
    return run


@pytest.fixture(scope="package")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("cells")
    values = small_values(folder, data={"max_cells": 60, "heldout_fraction": 0.3}, model={"layers": [1]})
    return made(folder, {**values, "concepts": {"enabled": False}})


@pytest.fixture(scope="package")
def proteins(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("proteins")
    data = {
        "kind": "proteins", "path": "builtin:demo_proteins", "label_key": "family", "group_key": "family", "heldout_fraction": 0.3,
        "max_proteins": 60,
    }  # fmt: skip
    values = small_values(folder, model={"family": "esm2", "layers": [1]}, activations={"items_per_shard": 40})
    del values["activations"]["cells_per_shard"]
    return made(folder, {**values, "data": data})


@pytest.fixture(scope="package")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("planted")
    values = yaml.safe_load((ROOT / "configs" / "planted.yaml").read_text())
    values["paths"] = {name: str(folder / name) for name in ("checkpoints", "results", "logs")}
    values["model"]["layers"] = [1]
    values["sae"]["stability"] = False
    values["validation"]["gmt"] = [str(ROOT / each) for each in values["validation"]["gmt"]]
    return made(folder, values)


def dense(encoder: Encoder, x: torch.Tensor) -> torch.Tensor:
    """z of every token and feature of a TopK SAE, [T, d_sae], written anew."""
    hidden = (x.double() - encoder.b_dec.double()) @ encoder.W_enc.double() + encoder.b_enc.double()
    values, index = hidden.topk(encoder.k, dim=1)
    return torch.zeros_like(hidden).scatter(1, index, values.clamp(min=0))
