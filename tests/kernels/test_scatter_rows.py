"""Rows laid into a window, by both versions, against the same in numpy and float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels.choice import KERNELS
from sae_genomics.kernels.scatter_rows import takes

SPECIAL = [0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan, -np.nan]


@pytest.mark.parametrize("version", ["fast", "plain"])
@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(0, 200), width=st.sampled_from([1, 2, 7, 16, 33, 100]), dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    special=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 99), st.sampled_from(SPECIAL)), max_size=6),
    strided=st.booleans(), seed=st.integers(0, 100),
)  # fmt: skip
def test_rows_peaks_and_sums(version, n, width, dtype, special, strided, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width * (2 if strided else 1), generator=generator).to(dtype)[:, :: 2 if strided else 1]
    for row, column, value in special:
        if row < n:
            x[row, column % width] = value
    index = np.random.default_rng(seed).permutation(n + 5)[:n]
    rows, peaks = torch.full((n + 5, width), 7.0, dtype=dtype), torch.full((n + 5,), 7.0)
    assert takes(x, rows)
    total, squared = getattr(KERNELS["scatter_rows.scatter_rows"], version)(x, index, rows, peaks)

    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(rows[index].view(bits), x.contiguous().view(bits)), "NaNs keep their bits too"
    others = np.setdiff1d(np.arange(n + 5), index)
    assert (rows[others] == 7).all()
    assert (peaks[others] == 7).all()
    exact = x.double().numpy()
    if n:
        np.testing.assert_array_equal(peaks[index].double().numpy(), np.abs(exact).max(axis=1))
    finite = exact[np.isfinite(exact).all(axis=1)]
    with np.errstate(over="ignore"):
        fits = np.abs(finite).sum(axis=0) < 3e38
        np.testing.assert_allclose(
            total[fits],
            finite.sum(axis=0)[fits],
            rtol=1e-5,
            atol=1e-5 * np.abs(finite).sum(axis=0)[fits].max(initial=0),
        )
        if (finite**2).sum() < 3e38:
            assert squared == pytest.approx((finite**2).sum(), rel=1e-5)


def test_what_it_does_not_take():
    x = torch.zeros(2, 4)
    assert not takes(x, x.to(torch.bfloat16))
    assert not takes(x.half(), x.half())
    assert not takes(x, torch.zeros(2, 4, device="meta"))
