"""A small run of two layers that needs `cross_layer` next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from sae_genomics.config import parse_config
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.sae.export import save_sae
from sae_genomics.sae.files import EVALUATED_FILES, SECOND_SEED
from sae_genomics.sae.load import Encoder
from sae_genomics.stages import stage_named

MODEL = Path(__file__).parents[1] / "fixtures" / "tx1_parity" / "relu_70m_style"
D_MODEL, D_SAE, K = 48, 64, 6


def random_encoder(seed: int) -> Encoder:
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=generator), dim=1)
    return Encoder("topk", decoder.T.contiguous(), torch.zeros(D_SAE), decoder, torch.full((D_MODEL,), 0.1), k=K)


def layered_run(where: Path, train: bool = False, **sections: dict[str, Any]) -> Run:
    """Made-up cells through prepare and extract of a small checkpoint, and SAEs that are saved as trained ones are: those of both seeds of
    both layers are the same but for layer 1's second. train: train them instead. sections: laid over the values of the config."""
    rng = np.random.default_rng(0)
    names = [name for name in json.loads((MODEL / "vocab.json").read_text()) if not name.startswith("<")]
    counts = (rng.random((60, len(names))) < 0.5) * rng.integers(1, 30, (60, len(names)))
    counts[:, 0] += 1
    obs = pd.DataFrame({"cell_type": ["a", "b"] * 30}, index=[f"cell{i}" for i in range(60)])
    var = pd.DataFrame({"symbol": names}, index=names)
    anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var).write_h5ad(where / "cells.h5ad")
    values: dict[str, Any] = {
        "run": {"name": "r", "seed": 3},
        "paths": {name: str(where / name) for name in ("checkpoints", "results", "logs")},
        "data": {"path": str(where / "cells.h5ad"), "symbol_key": "symbol", "heldout_fraction": 0.4},
        "model": {"path": str(MODEL), "device": "cpu", "layers": [0, 1]},
        "activations": {"cells_per_shard": 25},
        "sae": {"device": "cpu", "d_sae": D_SAE, "k": K, "steps": 30, "stability": True},
        "validation": {"builtin": False, "baselines": []},
        "cross_layer": {
            "enabled": True,
            "module_items": 30,
            "variance_tokens": 500,
            "attribution_items": 3,
            "attribution_features": 3,
            "attribution_checked": 8,
        },
    }
    for section, keys in sections.items():
        values[section] = {**values[section], **keys}
    made = Run(parse_config(values, "test"))
    for name in ("prepare", "extract"):
        for number in range(made.n_tasks(stage_named(name))):
            execute(made, stage_named(name), number)
    if not train:
        _save_random(made)
    for name in ("train", "associate"):
        for number in range(2):
            execute(made, stage_named(name), number)
    return made


def _save_random(run: Run) -> None:
    for number, seed in ((0, 0), (1, 5)):
        layer = run.layers[number]
        facts = {"model_name": "toy", "hook_name": f"blocks.{layer}.hook_resid_post"}
        save_sae(run.sae_dir(layer), random_encoder(0), facts)
        save_sae(run.sae_dir(layer) / SECOND_SEED, random_encoder(seed), facts)
        for name in EVALUATED_FILES:
            (run.sae_dir(layer) / name).write_bytes(b"{}")
        run.write_manifest(stage_named("train"), number, {})


def with_settings(run: Run, section: str, **values: object) -> Run:
    """The same run with other settings of one section."""
    changed = getattr(run.config, section).model_copy(update=values)
    return Run(run.config.model_copy(update={section: changed}), paths=run.paths, is_owner=False)
