"""Sums of rows by their group against the plain version."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels import grouped_sums  # noqa: F401  its kernels register themselves
from sae_genomics.kernels.arrays import SignedTotals
from sae_genomics.kernels.choice import KERNELS
from sae_genomics.kernels.grouping import by_group


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 30), min_size=1, max_size=3), st.integers(1, 7))
def test_rows(seed, lengths, n_columns):
    rng = np.random.default_rng(seed)
    fast, plain = ((np.zeros((5, n_columns)), np.zeros(5, np.int64)) for _ in range(2))
    shift = rng.normal(size=n_columns)
    for n in lengths:
        x, group = rng.normal(3, 1, (n, n_columns)).astype(np.float32), rng.integers(0, 5, n)
        squared = KERNELS["grouped_sums.add_rows"].fast(*fast, x, shift, group)
        expected = KERNELS["grouped_sums.add_rows"].plain(*plain, x, shift, group)
        np.testing.assert_allclose(squared, expected, rtol=1e-12)
    np.testing.assert_allclose(fast[0], plain[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(fast[1], plain[1])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 30), min_size=1, max_size=3), st.integers(0, 7))
def test_signed_values(seed, lengths, n_units):
    """Some units have no spread: they are never active."""
    rng = np.random.default_rng(seed)
    fast, plain = SignedTotals.zeros(6, n_units), SignedTotals.zeros(6, n_units)
    mean = rng.normal(size=n_units).astype(np.float32)
    inverse_std = np.where(rng.random(n_units) < 0.3, 0, rng.random(n_units)).astype(np.float32)
    for n in lengths:
        y, group = rng.normal(0, 2, (n, n_units)).astype(np.float32), rng.integers(-1, 6, n).astype(np.int32)
        y[rng.random(n) < 0.2] = mean  # z is 0: neither sign
        weight = rng.integers(1, 9, n).astype(np.float32)
        for version, totals in (("fast", fast), ("plain", plain)):
            getattr(KERNELS["grouped_sums.add_signed"], version)(totals, group, weight, y, mean, inverse_std)
    np.testing.assert_allclose(fast.activation_weight, plain.activation_weight, rtol=1e-12)
    np.testing.assert_allclose(fast.activation, plain.activation, rtol=1e-12)
    np.testing.assert_array_equal(fast.n_active, plain.n_active)


@given(st.lists(st.integers(-1, 4), max_size=30))
def test_rows_are_brought_together_in_their_order(group):
    ptr, order = by_group(np.array(group, np.int32), 5)
    assert ptr[0] == 0
    assert ptr[-1] == len(order)
    for g in range(5):
        assert order[ptr[g] : ptr[g + 1]].tolist() == [i for i, of_row in enumerate(group) if of_row == g]
