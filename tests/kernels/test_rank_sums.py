"""Sums of midranks against the plain version and SciPy's ranks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from sae_genomics.kernels import rank_sums  # noqa: F401  its kernels register themselves
from sae_genomics.kernels.choice import KERNELS


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 5), st.integers(1, 4),
    st.sampled_from(["sparse", "coarse", "negative"]),
)  # fmt: skip
def test_both_versions_rank_alike(seed, n, n_columns, n_groups, kind):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, n_groups, n)
    dense = rng.lognormal(0, 1, (n, n_columns)).astype(np.float32)
    if kind == "negative":  # nothing is implicit then
        dense -= 2
    else:
        dense *= rng.random((n, n_columns)) < rng.random(n_columns)
        dense = np.ceil(dense * 2) if kind == "coarse" else dense
    values = sparse.csc_matrix(dense)
    fast = KERNELS["rank_sums.rank_sums"].fast(values, group, n_groups)
    plain = KERNELS["rank_sums.rank_sums"].plain(values, group, n_groups)
    for name, expected in plain._asdict().items():
        np.testing.assert_allclose(getattr(fast, name), expected, rtol=1e-12, atol=1e-9, err_msg=name)
    ranks = stats.rankdata(dense, axis=0) if n else dense
    for g in range(n_groups):
        exact = dense[group == g].astype(np.float64)
        np.testing.assert_array_equal(plain.ranks[:, g], ranks[group == g].sum(axis=0))
        np.testing.assert_allclose(plain.values[:, g], exact.sum(axis=0), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(plain.squares[:, g], (exact**2).sum(axis=0), rtol=1e-12)
    for column in range(n_columns):
        counts = np.unique(dense[:, column], return_counts=True)[1].astype(np.float64)
        assert plain.ties[column] == (counts**3 - counts).sum()
