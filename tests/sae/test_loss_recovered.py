"""Splicing: a perfect reconstruction recovers everything, the mean recovers nothing, and the loss is the model's own."""

from __future__ import annotations

import zlib

import anndata as ad
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sae_genomics.config import ModelConfig
from sae_genomics.data.cells.h5ad import resolve
from sae_genomics.items import CountItems
from sae_genomics.models import load_model, vocabulary
from sae_genomics.sae.loss_recovered import measure

LAYER = 1


class Stand:
    """An encoder whose reconstruction is a given function of the activations."""

    def __init__(self, replace):
        self.replace = replace

    def reconstruct(self, x, units):
        return self.replace(x.float())


@pytest.fixture(scope="module")
def model_and_tokens():
    """The bundled model and twelve of the bundled cells: made-up cells would tell nothing about ablating a layer."""
    model = load_model(ModelConfig(name="demo"), "cpu")
    ids = vocabulary(ModelConfig(name="demo"))
    cells = ad.read_h5ad(resolve("builtin:pbmc68k_reduced"))[:120:10]
    normalised = np.expm1(cells.raw.X.toarray())
    smallest = np.where(normalised > 0, normalised, np.inf).min(axis=1, keepdims=True)
    counts = csr_matrix(np.round(normalised / smallest).astype(np.float32))
    genes = np.array([ids[name] for name in cells.raw.var_names], dtype=np.int32)
    return model, model.tokenise(CountItems(np.arange(12), counts, genes), seed=0)


@pytest.mark.parametrize("hook", ["resid_post", "mlp_out", "attn_out"])
def test_the_scale_runs_from_the_mean_to_the_activations(model_and_tokens, hook):
    model, tokens = model_and_tokens
    perfect = measure(model, tokens, LAYER, hook, Stand(lambda x: x), seed=0, batch_tokens=1000)
    assert perfect.reconstructed.sum() == pytest.approx(perfect.unchanged.sum(), rel=1e-6)
    assert perfect.recovered == pytest.approx(1.0, abs=1e-4)

    rows = []
    measure(model, tokens, LAYER, hook, Stand(lambda x: rows.append(x.clone()) or x), seed=0, batch_tokens=10**6)
    mean = torch.cat(rows).double().mean(dim=0).float()
    flat = measure(model, tokens, LAYER, hook, Stand(lambda x: mean.expand_as(x)), seed=0, batch_tokens=1000)
    assert flat.reconstructed.sum() == pytest.approx(flat.mean_ablated.sum(), rel=1e-5)
    assert flat.recovered == pytest.approx(0.0, abs=1e-3)


def test_the_loss_is_the_models_own(model_and_tokens):
    """Against one plain pass: the same genes hidden, their squared errors averaged."""
    model, tokens = model_and_tokens
    found = measure(model, tokens, LAYER, "resid_post", Stand(lambda x: x), seed=3, batch_tokens=500)
    special = np.zeros(len(tokens), bool)
    special[tokens.item_ptr[:-1]] = True
    hidden = ~special & (np.random.default_rng([3, zlib.crc32(b"sae.hidden")]).random(len(tokens)) < 0.5)
    predicted = model.outputs(tokens, masked=hidden).expr_preds.detach().numpy()
    assert found.hidden_tokens == hidden.sum()
    assert found.loss(found.unchanged) == pytest.approx(
        ((predicted - tokens.per_token["value"])[hidden] ** 2).mean(), rel=1e-5
    )
