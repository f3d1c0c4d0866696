"""Items' maxima and means of features against the plain version."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels import item_sums  # noqa: F401  its kernels register themselves
from sae_genomics.kernels.arrays import Active, FeatureSums
from sae_genomics.kernels.choice import KERNELS


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**32 - 1), st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.05, 0.5]), st.sampled_from([20, 400]),
)  # fmt: skip
def test_both_versions_add_the_same(seed, blocks, share, d_sae):
    """Few features and many: a cell's features are collected in two ways."""
    rng = np.random.default_rng(seed)
    fast, plain = FeatureSums.zeros(d_sae), FeatureSums.zeros(d_sae)
    for lengths in blocks:
        item_ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        n = int(item_ptr[-1])
        token, feature = np.nonzero(rng.random((n, d_sae)) < share)
        active = Active(
            np.searchsorted(token, np.arange(n + 1)), feature.astype(np.int32),
            rng.lognormal(0, 2, len(token)).astype(np.float32),
        )  # fmt: skip
        heldout, counted = rng.random(len(lengths)) < 0.4, rng.random(n) < 0.8
        rows = KERNELS["item_sums.add_items"].fast(fast, item_ptr, heldout, counted, active)
        expected = KERNELS["item_sums.add_items"].plain(plain, item_ptr, heldout, counted, active)
        for name, values in expected._asdict().items():
            assert getattr(rows, name).dtype == values.dtype, name
            np.testing.assert_array_equal(getattr(rows, name), values, name)
    for name, values in plain._asdict().items():
        np.testing.assert_array_equal(getattr(fast, name), values, name)
