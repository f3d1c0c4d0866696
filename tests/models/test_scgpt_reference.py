"""The reference backend of scGPT: the package's own model behind our interface. Needs `pip install --no-deps scgpt==0.2.4`, else it is skipped."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.models import check_model, load_model
from tests.models.test_scgpt_parity import FIXTURES, close, load

HERE = find_spec("scgpt") is not None
needs_package = pytest.mark.skipif(not HERE, reason="the scgpt package is not installed")


def config(name: str) -> ModelConfig:
    return ModelConfig(family="scgpt", path=FIXTURES / name, backend="reference")


@pytest.mark.skipif(HERE, reason="the scgpt package is installed")
def test_without_the_package_one_line_says_how_to_install_it() -> None:
    for ask in (check_model, lambda model: load_model(model, torch.device("cpu"))):
        with pytest.raises(UserError, match=r"pip install --no-deps scgpt==0\.2\.4, or set model\.backend: native"):
            ask(config("torch_layout"))


@needs_package
@pytest.mark.parametrize("name", ["torch_layout", "flash_layout"])
def test_both_backends_agree(name: str) -> None:
    native, tokens, expected = load(name)
    reference = load_model(config(name), torch.device("cpu"))
    assert "scgpt" not in sys.modules
    for hook in native.info.hooks:
        found = reference.forward_layers(tokens, [0, 1], hook)
        for layer in (0, 1):
            close(found[layer], expected[f"{hook}/{layer}"], f"{hook} of layer {layer}")
    hidden = ~tokens.special & (np.random.default_rng(0).random(len(tokens)) < 0.5)
    for change in ({}, {0: lambda x: x * 0.5 + 1}):
        losses = [model.masked_loss(tokens, hidden, "resid_post", change) for model in (reference, native)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
    close(reference.outputs(tokens).from_cell, expected["plain/mvc_output"], "mvc_output")
    with pytest.raises(UserError, match="to native"):
        reference.pause(tokens, 0, "resid_post")


@needs_package
def test_what_the_package_does_not_compute_without_flash_attn() -> None:
    with pytest.raises(UserError, match="pre_norm"):
        load_model(config("flash_pre_norm"), torch.device("cpu"))
