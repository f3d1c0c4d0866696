"""A small model of each kind, a random SAE for one of its layers, and plain loops over single items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sae_genomics.models.base import FoundationModel
from sae_genomics.models.esm2 import model as esm2
from sae_genomics.models.tx1 import load_folder
from sae_genomics.sae.load import Encoder
from sae_genomics.sae.unit_means import UnitMeans
from sae_genomics.tokens import Tokens
from tests.models.esm2_checkpoints import make, proteins
from tests.models.test_tx1_parity import FIXTURES, collated

D_SAE, K = 40, 8


def cells(name: str = "relu_70m_style") -> tuple[FoundationModel, Tokens]:
    """A Tahoe-x1 model of random weights, and three cells."""
    model = load_folder(FIXTURES / name)
    expected = np.load(FIXTURES / name / "expected.npz")
    return model, collated(expected, "no_drug", model.tokeniser.pad_token_id)[0]


def some_proteins(folder: Path) -> tuple[FoundationModel, Tokens]:
    """An ESM2 model of random weights, and five proteins."""
    make(folder)
    model = esm2.load_folder(folder)
    return model, model.tokenise(proteins(1, [17, 60, 5, 33, 12]), 0)


def random_encoder(d_model: int, *, units: int = 0, scale: float = 1.0, seed: int = 0) -> Encoder:
    """TopK of random directions. units: vocabulary ids whose means are subtracted; 0: nothing is."""
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, d_model, generator=generator), dim=1)
    means = None
    if units:
        drawn = torch.randn(units, d_model, generator=generator).numpy()
        ids = np.arange(units, dtype=np.int64)
        means = UnitMeans(ids, drawn, drawn.mean(0), np.full(units, 9, np.int64), 0.0)
    b_dec = torch.randn(d_model, generator=generator) * 0.1
    return Encoder("topk", W_dec.T.contiguous() * scale, torch.zeros(D_SAE), W_dec, b_dec, k=K, means=means)


def dense(encoder: Encoder, x: torch.Tensor, units: np.ndarray) -> torch.Tensor:
    """z of every token and feature, [T, d_sae]: the k largest, negative ones as zero."""
    given = x.float() if encoder.means is None else x.float() - torch.from_numpy(encoder.means.of(units))
    hidden = (given - encoder.b_dec) @ encoder.W_enc
    values, indices = hidden.topk(K, dim=1)
    return torch.zeros(len(x), D_SAE).scatter(1, indices, values.clamp(min=0))
