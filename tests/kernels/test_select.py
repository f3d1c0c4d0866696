"""Choosing the largest against torch.topk and plain comparisons."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels.select import above, top_k


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
