"""Products of chosen pairs of rows: both versions, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels import dots  # noqa: F401  it registers the kernels
from sae_genomics.kernels.choice import KERNELS

VERSIONS = pytest.mark.parametrize("version", ["fast", "plain"])


@VERSIONS
@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(1, 30),
    d=st.integers(0, 300),
    outputs=st.integers(1, 50),
    n=st.integers(0, 9000),
    seed=st.integers(0, 10**6),
)
def test_pair_values(version: str, tokens: int, d: int, outputs: int, n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, weight = (generator.standard_normal((rows, d), dtype=np.float32) for rows in (tokens, outputs))
    bias = generator.standard_normal(outputs, dtype=np.float32)
    rows, columns = generator.integers(0, tokens, n), generator.integers(0, outputs, n).astype(np.int32)
    got = getattr(KERNELS["dots.pair_values"], version)(x, weight, bias, rows, columns)
    wanted = (x @ weight.astype(np.float64).T + bias)[rows, columns]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
