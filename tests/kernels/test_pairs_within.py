"""Pairs of a network within lists: the two versions against each other and against dense sums."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sae_genomics.kernels import pairs_within  # noqa: F401  its kernels register themselves
from sae_genomics.kernels.choice import KERNELS


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 6), st.integers(0, 19), st.floats(0, 1))
def test_both_versions_count_the_same(seed, n_genes, n_lists, n_draws, share):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n_genes, n_genes)) < share, 1)
    network = upper | upper.T
    lists = rng.random((n_lists, n_genes)) < rng.random((n_lists, 1))
    names = np.array([rng.permutation(n_genes) for _ in range(n_draws)], dtype=np.int32).reshape(n_draws, n_genes)
    expected = [[network[np.ix_(name[each], name[each])].sum() // 2 for each in lists] for name in names]
    expected = np.array(expected, dtype=np.int32).reshape(n_draws, n_lists)
    kernel = KERNELS["pairs_within.pairs_within"]
    for version in (kernel.fast, kernel.plain):
        found = version(sparse.csr_matrix(lists), names, sparse.csr_matrix(upper))
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)
