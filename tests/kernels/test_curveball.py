"""Trades between rows: the fast version makes the same ones as the plain version."""

from __future__ import annotations

import numpy as np

from sae_genomics.kernels.choice import KERNELS
from sae_genomics.kernels.curveball import trade_rows


def test_both_versions_make_the_same_trades() -> None:
    generator = np.random.default_rng(5)
    table = generator.random((12, 30)) < 0.4
    pairs = np.array([generator.permutation(12)[:2] for _ in range(200)])
    keys = generator.integers(0, 1 << 64, 200, dtype=np.uint64)
    fast, plain = table.copy(), table.copy()
    trade_rows(fast, pairs, keys)
    KERNELS["curveball.trade_rows"].plain(plain, pairs, keys)
    np.testing.assert_array_equal(fast, plain)
    assert (fast != table).any()
    np.testing.assert_array_equal(fast.sum(axis=0), table.sum(axis=0))
    np.testing.assert_array_equal(fast.sum(axis=1), table.sum(axis=1))
