"""Choosing the largest against torch.topk and plain comparisons."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.sae.encode import Weights, batch_top_k
from sae_genomics.sae.select import above, top_k


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 3000), k=st.integers(1, 70), scale=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_top_k_is_torch_topk(rows: int, columns: int, k: int, scale: float, seed: int) -> None:
    k = min(k, columns)
    generator = np.random.default_rng(seed)
    hidden = generator.standard_normal((rows, columns), dtype=np.float32)
    hidden *= np.exp(scale * generator.standard_normal(columns)).astype(np.float32)  # some latents far ahead of others
    weight = generator.uniform(0.5, 1.5, columns).astype(np.float32)
    indices, values = np.empty((rows, k), np.int32), np.empty((rows, k), np.float32)
    top_k(hidden, weight, k, indices, values)
    wanted = torch.from_numpy(hidden * weight).topk(k, dim=1).indices.sort(dim=1).values.numpy()
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_array_equal(values, np.maximum(np.take_along_axis(hidden, wanted, axis=1), 0))


@pytest.mark.parametrize(("n", "k"), [(20, 20), (100, 20), (1500, 20)])
def test_a_choice_of_columns_and_signs(n: int, k: int) -> None:
    generator = np.random.default_rng(0)
    hidden = generator.standard_normal((5, 2000), dtype=np.float32) - 3
    weight = generator.uniform(0.5, 1.5, 2000).astype(np.float32)
    among = np.sort(generator.choice(2000, n, replace=False)).astype(np.int32)
    indices, values = np.empty((5, k), np.int32), np.empty((5, k), np.float32)
    top_k(hidden, weight, k, indices, values, among=among, rectify=False)
    wanted = among[torch.from_numpy((hidden * weight)[:, among]).topk(k, dim=1).indices.sort(dim=1).values.numpy()]
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_array_equal(values, np.take_along_axis(hidden, wanted, axis=1))


@pytest.mark.parametrize("columns", [30, 5000])
def test_ties_and_nan(columns: int) -> None:
    """Ties leave exactly k, the lower columns; rows of NaN end, and show NaN."""
    hidden = np.zeros((3, columns), np.float32)
    hidden[1] = np.nan
    hidden[2, ::2] = np.nan
    hidden[2, 1::2] = np.arange(columns // 2)
    indices, values = np.empty((3, 4), np.int32), np.empty((3, 4), np.float32)
    top_k(hidden, np.ones(columns, np.float32), 4, indices, values)
    np.testing.assert_array_equal(indices[0], [0, 1, 2, 3])
    assert np.isnan(values[1]).all()
    np.testing.assert_array_equal(values[2], np.arange(columns // 2)[-4:])


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 400), seed=st.integers(0, 10**6))
def test_above(rows: int, columns: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    hidden = generator.standard_normal((rows, columns), dtype=np.float32)
    threshold = generator.uniform(0, 2, columns).astype(np.float32)
    row, column, value = above(hidden, threshold)
    wanted = np.nonzero(hidden > threshold)
    np.testing.assert_array_equal(row, wanted[0])
    np.testing.assert_array_equal(column, wanted[1])
    np.testing.assert_array_equal(value, hidden[wanted])


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
