"""scGPT from data to report: a small checkpoint that learnt a little of real cells, through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
import yaml
from scipy.sparse import csr_matrix

from sae_genomics.config import load_config
from sae_genomics.models.scgpt.model import load_folder
from sae_genomics.run import Run
from tests.models.scgpt_checkpoints import ARGS, train
from tests.pipeline.conftest import run_command, small_values

pytestmark = pytest.mark.slow
STEPS = 120


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the cells of `builtin:pbmc68k_reduced`, whose counts are recovered from log-normalised values."""
    folder = tmp_path_factory.mktemp("checkpoint") / "blood_scgpt"
    raw = sc.datasets.pbmc68k_reduced().raw.to_adata()
    normalised = np.expm1(raw.X.toarray())
    counts = np.rint(normalised / np.where(normalised > 0, normalised, np.inf).min(1, keepdims=True))
    losses = train(folder, csr_matrix(counts.astype(np.float32)), list(raw.var_names.astype(str)), steps=STEPS)
    variance = ((ARGS["n_bins"] - 1) ** 2 - 1) / 12  # of values that are spread evenly over the bins
    assert np.mean(losses[-20:]) < 0.9 * variance
    return folder


def write(folder: Path, checkpoint: Path, **sections: Any) -> Path:
    values = small_values(folder, model={"family": "scgpt", "path": str(checkpoint), "name": None}, **sections)
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def finished(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run, every stage turned on."""
    config = write(
        tmp_path_factory.mktemp("run"), checkpoint,
        data={"max_cells": 120, "heldout_fraction": 0.3}, validation={"baselines": ["untrained"], "shuffles": 1}, sae={"steps": 200, "d_sae": 64, "k": 6}, concepts={"enabled": True},
        causal={"enabled": True, "features": 2, "sampled_features": 1, "items": 6, "draws": 2, "dose_features": 1, "target_draws": 19},
        cross_layer={"enabled": True},
    )  # fmt: skip
    done = run_command("pipeline", config, "--local")
    assert done.returncode == 0, done.stderr
    return Run(load_config(config), config)


def test_what_is_stored_is_what_the_model_computes(finished: Run, checkpoint: Path) -> None:
    root = Path(finished.config.paths.checkpoints) / "small" / "activations"
    model = load_folder(checkpoint)
    with h5py.File(root / "tokens" / "shard_0000.h5") as file:
        tokens = {name: file[name][:] for name in ("item", "token", "unit", "special", "value", "item_ptr")}
    assert np.diff(tokens["item_ptr"]).max() == ARGS["max_seq_len"]
    np.testing.assert_array_equal(np.flatnonzero(tokens["special"]), tokens["item_ptr"][:-1])
    assert (tokens["value"][tokens["special"]] == -2).all()
    network = model.network
    for cell in (0, 7):
        rows = slice(*tokens["item_ptr"][cell : cell + 2])
        gene, value = (torch.from_numpy(tokens[name][rows]) for name in ("token", "value"))
        padded = torch.nn.TransformerEncoderLayer(48, 3, 64, batch_first=True).eval()
        with torch.inference_mode():
            _, x = network.embed(gene.long(), value)
            for layer, block in enumerate(network.blocks):
                state = {name.replace("Wqkv.", "in_proj_"): tensor for name, tensor in block.state_dict().items()}
                padded.load_state_dict(state)
                x = padded(x[None])[0]
                if layer in (0, 2):
                    with h5py.File(root / f"layer_{layer:02d}" / "shard_0000.h5") as file:
                        stored = file["activations"][rows]
                    np.testing.assert_allclose(stored, x.numpy(), atol=1e-5 * float(x.abs().max()))


def test_the_report_reads_as_one_of_cells_and_genes(finished: Run) -> None:
    report = finished.report_file.read_text()
    assert "scgpt: 3 layers, d_model 48, 3 heads" in report
    assert "the model `blood_scgpt`" in report
    assert "765 of 765 known to the model" in report
    assert "bulk_labels" in report
    for section in (
        "Features that match known biology",
        "What features do to the model's predictions",
        "Features over layers",
    ):
        body = report.split(section, 1)[1][:2000]
        assert len(body.split()) > 50
    for layer in finished.layers:
        genes = set(pd.read_parquet(finished.layer_results(layer) / "feature_genes.parquet")["gene_symbol"])
        assert genes <= set(sc.datasets.pbmc68k_reduced().raw.var_names)
        assert len(genes) > 50
        effects = pd.read_parquet(finished.layer_results(layer) / "causal_features.parquet")
        assert set(effects["outcome"]) == {"token", "from_item", "embedding"}
        assert effects["effect_own"].abs().max() > 0
    assert finished.dashboard_file.stat().st_size > 10_000


def test_the_model_is_worth_something_to_its_features(finished: Run) -> None:
    metrics = [yaml.safe_load((finished.sae_dir(layer) / "metrics.json").read_text()) for layer in finished.layers]
    assert all(0.5 < found["loss_recovered"] <= 1.05 for found in metrics)


def test_bad_input_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    config = write(tmp_path, checkpoint)
    for setting, words in (
        (f"model.path={tmp_path}", "incomplete: no args.json"),
        ("model.backend=reference", "pip install --no-deps scgpt"),
        ("data.gene_key=n_counts", "n_counts"),
        ("model.layers=[7]", "layer 7 is out of range"),
        ("model.drug_key=bulk_labels", "model.drug_key"),
    ):
        done = run_command("pipeline", config, "--local", "--set", setting)
        assert done.returncode == 2, (setting, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
