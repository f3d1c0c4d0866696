"""A small Geneformer from data to report: real blood cells, whose symbols its own dictionary translates."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
import yaml
from transformers import BertConfig, BertForMaskedLM

from sae_genomics.config import load_config
from sae_genomics.data.cells.read import cell_counts
from sae_genomics.items import CountItems
from sae_genomics.run import Run
from tests.models.esm2_checkpoints import close
from tests.models.geneformer_checkpoints import CLS, EOS, MASK, PAD, seen_by_hooks
from tests.pipeline.conftest import run_command, small_values
from tests.stage_names import OFF

pytestmark = pytest.mark.slow
MOST = 120  # tokens of the longest sequence: most of these cells have more genes
LEFT_OUT = "CD3E"  # a gene without a median
CELLS = 120


def symbols() -> list[str]:
    return [str(name) for name in sc.datasets.pbmc68k_reduced().raw.var_names]


def write_model(repository: Path, steps: int = 40) -> Path:
    """As the hub has it: the model's folder, and the dictionaries in a folder beside it. Trained for a moment on the cells themselves."""
    names = symbols()
    ids = [f"ENSG{number:011d}" for number in range(len(names))]
    tokens = {"<pad>": PAD, "<mask>": MASK, "<cls>": CLS, "<eos>": EOS} | {gene: 4 + n for n, gene in enumerate(ids)}
    raw = sc.datasets.pbmc68k_reduced().raw.X.toarray().astype(np.float64)
    level = np.array([np.median(column[column > 0]) if (column > 0).any() else 1.0 for column in np.expm1(raw).T])
    medians = {gene: level[n] for n, gene in enumerate(ids) if names[n] != LEFT_OUT}
    place = repository / "geneformer"
    place.mkdir(parents=True)
    for stem, entries in (
        ("token_dictionary", tokens), ("gene_median_dictionary", medians), ("gene_name_id_dict", dict(zip(names, ids, strict=True))),
    ):  # fmt: skip
        (place / f"{stem}_gc104M.pkl").write_bytes(pickle.dumps(entries))
    torch.manual_seed(0)
    network = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokens), hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96,
            max_position_embeddings=MOST, hidden_act="relu", pad_token_id=PAD,
        )
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    ranked = torch.from_numpy(np.argsort(-np.expm1(raw) / level, axis=1, kind="stable")[:, : MOST - 2] + 4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = ranked[torch.randint(0, len(ranked), (16,), generator=generator)]
        hidden = torch.rand(some.shape, generator=generator) < 0.15
        found = network(input_ids=torch.where(hidden, MASK, some), labels=torch.where(hidden, some, -100))
        found.loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    folder = repository / "Geneformer-small"
    network.eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished run, and what the command printed."""
    folder = tmp_path_factory.mktemp("geneformer")
    model = write_model(folder / "hub")
    values: dict[str, Any] = small_values(
        folder,
        data={"max_cells": CELLS},
        model={"family": "geneformer", "name": None, "path": str(model), "layers": [0, 2]},
        sae={"steps": 120, "centre": "unit", "d_sae": 96, "k": 4},
    )
    values = {key: value for key, value in values.items() if key not in OFF} | {"causal": {"features": 4, "items": 6}}  # fmt: skip
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    done = run_command("pipeline", folder / "small.yaml", "--local")
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_files_hold_what_transformers_hooks_see_of_ranked_genes(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    names = symbols()
    cells = pd.read_parquet(next(folder.rglob("cells.parquet")))
    genes = pd.read_parquet(next(folder.rglob("genes.parquet")))
    assert genes.loc[genes["gene_symbol"] == LEFT_OUT, "token"].tolist() == [-1]
    medians = pickle.loads((folder / "hub/geneformer/gene_median_dictionary_gc104M.pkl").read_bytes())
    level = np.array([medians.get(f"ENSG{n:011d}", np.nan) for n in range(len(names))])
    network = BertForMaskedLM.from_pretrained(folder / "hub" / "Geneformer-small", dtype=torch.float32).eval()
    checkpoints = folder / "checkpoints" / "small"
    counts, rows = cell_counts(Run(load_config(folder / "small.yaml"), folder / "small.yaml"), np.arange(40))
    assert rows.tolist() == cells["cell"].tolist()[:40]
    tokens_of = genes.loc[genes["token"] >= 0].sort_values("token")["token"].to_numpy()
    with h5py.File(checkpoints / "activations" / "tokens" / "shard_0000.h5") as file:
        stored = {name: file[name][:] for name in file}
    with h5py.File(checkpoints / "activations" / "layer_02" / "shard_0000.h5") as file:
        activations = file["activations"][:]
    for number in (0, 17, 39):
        part = slice(stored["item_ptr"][number], stored["item_ptr"][number + 1])
        vector = counts[number].toarray()[0].astype(np.float64)
        (there,) = np.nonzero(vector)
        scaled = vector[there] / level[tokens_of[there] - 4]  # the cell's total ranks nothing
        ranked = tokens_of[there][np.argsort(-scaled, kind="stable")][: MOST - 2].tolist()
        row = stored["token"][part].tolist()
        assert (row[0], row[-1]) == (CLS, EOS)
        assert row[1:-1] == ranked
        assert stored["position"][part].tolist() == list(range(len(row)))
        assert close(activations[part], seen_by_hooks(network, [row])["resid_post", 2][0])


def test_totals_are_those_of_all_genes_in_the_file(finished: tuple[Path, str]) -> None:
    """Also of genes that the model does not know: here the one without a median."""
    folder, _ = finished
    run = Run(load_config(folder / "small.yaml"), folder / "small.yaml")
    items = run.kind.read(run, np.arange(40))
    assert isinstance(items, CountItems)
    known = np.asarray(items.counts.sum(axis=1, dtype=np.float64)).ravel()
    raw = sc.datasets.pbmc68k_reduced().raw
    left_out = raw.X[items.rows].toarray()[:, symbols().index(LEFT_OUT)] > 0
    assert items.totals is not None
    assert ((items.totals - known > 0.5) == left_out).all()
    assert 0 < left_out.sum() < 40


def test_the_report_speaks_of_genes_by_symbol(finished: tuple[Path, str]) -> None:
    folder, said = finished
    results = folder / "results" / "small"
    report = (results / "report.md").read_text()
    assert "Traceback" not in said
    assert f"{len(symbols()) - 1:,} of {len(symbols()):,} genes matched" in said
    assert "Nothing: all" in report
    assert "| **Architecture** | geneformer: 3 layers, d_model 48, 3 heads" in report
    for title in ("How faithful the features are", "Features that match known biology"):
        assert title in report
    assert "ENSG" not in report
    assert len(re.findall(r"taken out of the model one by one", report)) >= 1
    for layer in (0, 2):
        units = pd.read_parquet(results / f"layer_{layer:02d}" / "feature_genes.parquet")
        assert set(units["gene_symbol"]) <= set(symbols()) - {LEFT_OUT}
        metrics = json.loads((folder / f"checkpoints/small/saes/layer_{layer:02d}/metrics.json").read_text())
        assert metrics["loss_name"] == "cross-entropy of hidden genes, in nats"
        assert np.isfinite(metrics["loss_recovered"]) or metrics["loss_recovered"] is None
