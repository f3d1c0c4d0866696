"""Random blocks of tokens and their triples, plain loops to compare with, and small real runs up to a trained SAE."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import strategies as st

from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.config import parse_config
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.sae.export import save_sae
from sae_genomics.sae.load import Encoder
from sae_genomics.stages import stage_named

MODEL = Path(__file__).parents[1] / "fixtures" / "tx1_parity" / "relu_70m_style"
D_MODEL = 48


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Run]:
    """make_run(n_cells, types, d_sae, k, dead, obs, section__key=value, ...) -> a run that needs `associate` next.

    Made-up cells through the real stages prepare and extract of a small checkpoint (layer 1), and an SAE that was not
    trained but is saved as a trained one is. types: names to draw from, or None for no annotation. dead: how many of the
    features can never be active. obs: further annotations.
    """

    def make(
        n_cells: int = 40,
        types: tuple[str, ...] | None = ("a", "b", "c"),
        d_sae: int = 64,
        k: int = 6,
        dead: int = 5,
        obs: pd.DataFrame | None = None,
        **changes: object,
    ) -> Run:
        rng = np.random.default_rng(0)
        names = [name for name in json.loads((MODEL / "vocab.json").read_text()) if not name.startswith("<")]
        counts = (rng.random((n_cells, len(names))) < rng.uniform(0.1, 0.6, (n_cells, 1))) * rng.integers(
            1, 30, (n_cells, len(names))
        )
        counts[:, 0] += 1
        table = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)]) if obs is None else obs
        if types is not None:
            kinds = rng.choice(types, n_cells)
            table["cell_type"] = kinds
            for number, kind in enumerate(types):
                counts[kinds == kind, 3 * number : 3 * number + 3] += 40
        var = pd.DataFrame({"symbol": [f"SYM{i}" for i in range(len(names))]}, index=names)
        data = anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=table, var=var)
        data.obsm["X_umap"] = rng.random((n_cells, 2))
        data.write_h5ad(tmp_path / "cells.h5ad")
        values: dict = {
            "run": {"name": "r", "seed": 3},
            "paths": {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs")},
            "data": {"path": str(tmp_path / "cells.h5ad"), "symbol_key": "symbol"},
            "model": {"path": str(MODEL), "device": "cpu", "layers": [1]},
            "activations": {"cells_per_shard": 15},
            "sae": {"device": "cpu", "d_sae": d_sae, "k": k, "steps": 30, "batch_tokens": 128},
            "validation": {"builtin": False},
        }
        for key, value in changes.items():
            section, _, name = key.partition("__")
            values.setdefault(section, {})[name] = value
        run = Run(parse_config(values, "test"))
        for name in ("prepare", "extract"):
            for task in range(run.n_tasks(stage_named(name))):
                execute(run, stage_named(name), task)
        encoder = random_encoder(d_sae, k, dead)
        save_sae(run.sae_dir(1), encoder, {"model_name": "toy", "hook_name": "blocks.1.hook_resid_post"})
        return run

    return make


def random_encoder(d_sae: int, k: int, dead: int) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, D_MODEL, generator=generator), dim=1)
    bias = torch.zeros(d_sae)
    bias[:dead] = -1e6
    return Encoder("topk", decoder.T.contiguous(), bias, decoder, torch.full((D_MODEL,), 0.1), k=k)


@st.composite
def blocks(draw, max_cells: int = 6, max_tokens: int = 12, n_genes: int = 7, d_sae: int = 40):
    """(TokenBlock, Triples, n_genes, d_sae): whole cells, some empty, some tokens that never count, some silent."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = rng.integers(0, max_tokens + 1, draw(st.integers(1, max_cells)))
    n = int(lengths.sum())
    gene = rng.integers(-1, n_genes, n).astype(np.int32)
    expression = rng.integers(1, 50, n).astype(np.float32)
    heldout = rng.random(len(lengths)) < 0.4
    active = rng.random((n, d_sae)) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    token, feature = np.nonzero(active)
    activation = rng.lognormal(0, 2, len(token)).astype(np.float32)
    block = TokenBlock(gene, expression, np.concatenate([[0], np.cumsum(lengths)]), heldout)
    return block, Triples(token, feature.astype(np.int32), activation), n_genes, d_sae


def looped_gene_sums(batches) -> dict[tuple[int, int], list[float]]:
    """(feature, gene) -> [sum activation x expression, sum activation, tokens], one addition at a time."""
    sums: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for block, triples in batches:
        for token, feature, activation in zip(triples.token, triples.feature, triples.activation, strict=True):
            if block.unit[token] >= 0:
                entry = sums[int(feature), int(block.unit[token])]
                entry[0] += float(activation) * float(block.weight[token])
                entry[1] += float(activation)
                entry[2] += 1
    return dict(sums)


def as_dictionary(pair_blocks) -> dict[tuple[int, int], list[float]]:
    """PairSums blocks in the form of the loop."""
    found = {}
    for pairs in pair_blocks:
        feature = pairs.first + np.repeat(np.arange(len(pairs.ptr) - 1), np.diff(pairs.ptr))
        for i in range(len(feature)):
            found[int(feature[i]), int(pairs.unit[i])] = [
                pairs.activation_weight[i], pairs.activation[i], int(pairs.n_active[i]),
            ]  # fmt: skip
    return found
