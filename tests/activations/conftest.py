"""Small prepared runs of the parity checkpoints on made-up cells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from sae_genomics.config import parse_config
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

MODELS = Path(__file__).parents[1] / "fixtures" / "tx1_parity"
N_CELLS = 45
DRUGS = ["DMSO_TF", "Trametinib", "Vorinostat", "unheard of"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cells(tmp_path_factory) -> Path:
    """An h5ad of 45 cells with 3 to 110 expressed genes of the checkpoints' vocabulary, the first with none."""
    vocabulary = json.loads((MODELS / "relu_70m_style" / "vocab.json").read_text())
    names = [name for name in vocabulary if not name.startswith("<")]
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.03, 0.95, (N_CELLS, 1))
    shares[0] = 0
    counts = (rng.random((N_CELLS, len(names))) < shares) * rng.integers(1, 30, (N_CELLS, len(names)))
    obs = pd.DataFrame(
        {"drug": rng.choice(DRUGS, N_CELLS), "kind": rng.choice(["a", "b"], N_CELLS)},
        index=[f"c{i}" for i in range(N_CELLS)],
    )
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=names)).write_h5ad(path)
    return path


@pytest.fixture
def prepared(cells, tmp_path) -> Callable[..., Run]:
    """prepared(model folder, section__key=value, ...) -> a run whose stage prepare is done."""

    def make(model: str = "relu_70m_style", **changes) -> Run:
        values = {
            "run": {"name": "r", "seed": 3},
            "paths": {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs")},
            "data": {"path": str(cells)},
            "model": {"path": str(MODELS / model), "device": "cpu"},
            "activations": {"cells_per_shard": 20},
        }
        for key, value in changes.items():
            section, _, name = key.partition("__")
            values.setdefault(section, {})[name] = value
        run = Run(parse_config(values, "test"))
        execute(run, stage_named("prepare"), 0)
        return run

    return make
