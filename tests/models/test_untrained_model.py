"""A model of the same shape that has learned nothing: weights as training begins with, from a seed alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

from sae_genomics.config import parse_config
from sae_genomics.items import CountItems
from sae_genomics.models import load_model, untrained_model

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tx1_parity"
CPU = torch.device("cpu")


def config(name: str, **model: object):
    values = {"path": str(FIXTURES / name), "device": "cpu", **model}
    return parse_config({"data": {"path": "x"}, "model": values}, "test").model


@pytest.mark.parametrize("name", ["relu_70m_style", "glu_post_norm", "gelu_chem_3b_style"])
def test_it_has_the_shape_of_the_model_and_other_weights(name):
    trained, made = load_model(config(name)), untrained_model(config(name), CPU, seed=1)
    theirs, mine = trained.network.state_dict(), made.network.state_dict()
    assert {key: value.shape for key, value in mine.items()} == {key: value.shape for key, value in theirs.items()}
    assert made.vocab == trained.vocab
    assert made.piece_tokens == trained.piece_tokens
    matrices = [key for key, value in mine.items() if value.ndim == 2]
    assert matrices
    assert not any(torch.equal(mine[key], theirs[key]) for key in matrices)
    assert not any(parameter.requires_grad for parameter in made.network.parameters())


def test_weights_are_those_that_the_references_training_begins_with():
    """kaiming_normal_ by fan-in, the two layers that write to the residual stream divided by sqrt(2 n_layers)."""
    made = untrained_model(config("relu_70m_style"), CPU, seed=1)
    n_layers = made.info.n_layers
    for name, module in made.network.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            wanted = math.sqrt(2 / module.weight.shape[1])
            if name.endswith(("self_attn.out_proj", ".down_proj")):
                wanted /= math.sqrt(2 * n_layers)
            if module.weight.numel() > 1000:
                assert float(module.weight.std()) == pytest.approx(wanted, rel=0.1), name
                assert abs(float(module.weight.mean())) < 0.1 * wanted
            if getattr(module, "bias", None) is not None:
                assert not module.bias.any(), name
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()


def test_a_seed_means_the_same_weights_whatever_was_drawn_before():
    first = untrained_model(config("relu_70m_style"), CPU, seed=1).network.state_dict()
    torch.rand(100)
    again = untrained_model(config("relu_70m_style"), CPU, seed=1).network.state_dict()
    other = untrained_model(config("relu_70m_style"), CPU, seed=2).network.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["gene_encoder.embedding.weight"], other["gene_encoder.embedding.weight"])
    state = torch.get_rng_state()
    untrained_model(config("relu_70m_style"), CPU, seed=1)
    assert torch.equal(state, torch.get_rng_state()), "the process' own generator is left alone"


def test_no_weights_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("sae_genomics.models.tx1.load_weights", None)
    untrained_model(config("relu_70m_style"), CPU, seed=1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_runs_and_gives_finite_activations(dtype):
    made = untrained_model(config("relu_70m_style", compute_dtype=dtype), CPU, seed=1)
    ids = np.array(sorted(made.vocab.values()), dtype=np.int32)
    counts = csr_matrix(np.random.default_rng(0).integers(0, 9, (5, len(ids))).astype(np.float32))
    tokens = made.tokenise(CountItems(np.arange(5), counts, ids), seed=0)
    found = made.forward_layers(tokens, [0, 1], "resid_post")
    for rows in found.values():
        assert rows.shape == (len(tokens), made.info.d_model)
        assert torch.isfinite(rows.float()).all()
        assert float(rows.float().std()) > 0.1
