"""The choice of the largest of a batch against sorting it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.sae.encode import Weights, batch_top_k


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(1, 60), d_in=st.integers(1, 10), d_sae=st.integers(1, 800), k=st.integers(1, 30),
    spread=st.sampled_from([0.0, 3.0]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_batch_top_k(tokens: int, d_in: int, d_sae: int, k: int, spread: float, seed: int) -> None:
    """Also where a few tokens hold most of what is chosen, and a bound read off others is far too high or low."""
    k = min(k, d_sae)
    generator = np.random.default_rng(seed)
    centred = generator.standard_normal((tokens, d_in), dtype=np.float32)
    centred *= np.exp(spread * generator.standard_normal((tokens, 1))).astype(np.float32)
    W_enc = torch.from_numpy(generator.standard_normal((d_sae, d_in), dtype=np.float32))
    norm = generator.uniform(0.5, 1.5, d_sae).astype(np.float32)
    weights = Weights(W_enc, torch.zeros(d_sae), norm)
    entries, smallest = batch_top_k(torch.from_numpy(centred), weights, k)
    hidden = torch.addmm(torch.zeros(d_sae), torch.from_numpy(centred), W_enc.T).numpy()
    score = np.maximum(hidden, 0) * norm
    order = np.sort(score, axis=None)[::-1][: k * tokens]
    order = order[order > 0]
    token = np.repeat(np.arange(tokens), np.diff(entries.indptr))
    got = np.zeros_like(hidden)
    got[token, entries.indices] = entries.values
    assert len(entries.values) == len(order)
    np.testing.assert_allclose(np.sort(got * norm, axis=None)[::-1][: len(order)], order, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[got > 0], hidden[got > 0], rtol=1e-5, atol=1e-5)
    if len(order):
        assert smallest == pytest.approx(order[-1], rel=1e-5, abs=1e-5)
