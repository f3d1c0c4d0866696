"""Swaps of targets: the two versions against each other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels import target_swaps  # noqa: F401  its kernels register themselves
from sae_genomics.kernels.choice import KERNELS


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 12), st.floats(0.05, 0.9), st.integers(0, 200))
def test_both_versions_swap_the_same(seed, n_factors, n_targets, share, n_proposals):
    rng = np.random.default_rng(seed)
    known = rng.random((n_factors, n_targets)) < share
    own = rng.integers(-1, n_targets, n_factors)
    known[np.flatnonzero(own >= 0), own[own >= 0]] = False
    factor, target = np.nonzero(known)
    proposals = rng.integers(0, max(len(factor), 1), (n_proposals if len(factor) else 0, 2))
    results = []
    for version in (KERNELS["target_swaps.swap_targets"].fast, KERNELS["target_swaps.swap_targets"].plain):
        mine, now = known.copy(), target.copy()
        made = version(factor, now, own, mine, proposals)
        results.append((made, now, mine))
        assert (mine.sum(axis=0) == known.sum(axis=0)).all()
        assert (mine.sum(axis=1) == known.sum(axis=1)).all()
        assert mine[factor, now].all()
        assert not (own[factor] == now).any()
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
