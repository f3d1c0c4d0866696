"""G of pairs: the fast version counts and gives what the plain one does, and leaves out only what is below `least`."""

from __future__ import annotations

import numpy as np
import pytest

from sae_genomics.cross_layer.coactivation import as_bits
from sae_genomics.kernels.arrays import Pairs
from sae_genomics.kernels.choice import KERNELS
from sae_genomics.kernels.pair_g import pair_g  # noqa: F401, which makes it a kernel


@pytest.mark.parametrize("n", [64, 70, 333])
@pytest.mark.parametrize("subtracts", [False, True])
def test_both_versions_agree(n: int, subtracts: bool) -> None:
    generator = np.random.default_rng(n)
    tables = [generator.random((n, size)) < generator.random(size) for size in (40, 50)]
    tables[1][:, :5] = tables[0][:, :5]  # some pairs far from chance
    looked = generator.random((20, 50)) < 0.6
    looked[4] = False
    looked[:5, :5] = True
    column = np.nonzero(looked)[1].astype(np.int32)
    ptr = np.concatenate([[0], np.cumsum(looked.sum(axis=1))])
    bits, sums = tuple(as_bits(each) for each in tables), tuple(each.sum(axis=0).astype(float) for each in tables)
    row = np.repeat(np.arange(20), looked.sum(axis=1)) + 3
    chance = sums[0][row] * sums[1][column] / n * generator.uniform(0.9, 1.1, len(row))
    counted = (tables[0].T.astype(int) @ tables[1])[row, column]
    less = generator.integers(0, 3, len(row)).clip(max=counted).astype(np.int32) if subtracts else np.zeros(0, np.int32)
    pairs = Pairs(3, ptr, column, chance.astype(np.float32), less)
    kernel = KERNELS["pair_g.pair_g"]
    both, g = kernel.fast(bits, pairs, sums, n, -np.inf)
    plain_both, plain_g = kernel.plain(bits, pairs, sums, n, -np.inf)
    np.testing.assert_array_equal(both, counted - (less if subtracts else 0))
    np.testing.assert_array_equal(both, plain_both)
    np.testing.assert_allclose(g, plain_g, rtol=1e-9, atol=1e-9)
    for least in (0.5, 20.0):
        some = kernel.fast(bits, pairs, sums, n, least)[1]
        left_out = some == -np.inf
        assert left_out.any()
        assert (g[left_out] < least).all()
        np.testing.assert_array_equal(some[~left_out], g[~left_out])
