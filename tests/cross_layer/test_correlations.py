"""Correlations from active entries: against numpy.corrcoef, both versions of the kernel, and the permutation within units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sae_genomics.cross_layer.correlations import (
    Features,
    candidates,
    chance_bound,
    largest,
    permuted_within,
    same_layer_correlations,
)
from sae_genomics.kernels import compiled
from sae_genomics.kernels.choice import KERNELS
from tests.cross_layer.made_up import random_layer, rows_of


def corrcoef(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """numpy's, 0 where a feature never varies: [features of x, features of y]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.corrcoef(x.T.astype(float), y.T.astype(float))[: x.shape[1], x.shape[1] :]
    return np.nan_to_num(found)


layers = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.5, 1.0])
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(layers)
def test_every_correlation_is_numpys(drawn):
    seed, n, d_first, d_second, share = drawn
    rng = np.random.default_rng(seed)
    x, y = random_layer(rng, n, d_first, share), random_layer(rng, n, d_second, share)
    found = candidates(Features.of(rows_of(x), d_first), Features.of(rows_of(y), d_second), 12)
    dense = np.zeros((d_first, d_second))
    dense[found.first, found.second] = found.correlation
    np.testing.assert_allclose(dense, np.maximum(corrcoef(x, y), 0), atol=1e-7)


@settings(deadline=None, max_examples=40)
@given(layers, st.integers(1, 4))
@example((0, 2, 1, 5, 0.5), 1)
def test_both_versions_of_the_kernel_agree(drawn, n_best):
    seed, n, d_first, d_second, share = drawn
    rng = np.random.default_rng(seed)
    first = Features.of(rows_of(random_layer(rng, n, d_first, share)), d_first)
    second = Features.of(rows_of(random_layer(rng, n, d_second, share)), d_second)
    kernel = KERNELS["cross_products.best_correlations"]
    arguments = (first.by_feature, second.by_token, rng.permutation(n), (first.moments, second.moments), n_best)
    fast, plain = kernel.fast(*arguments), kernel.plain(*arguments)
    np.testing.assert_allclose(fast[1], plain[1], atol=1e-9)
    largest_of = KERNELS["cross_products.largest_correlations"]
    for one, other in zip(largest_of.fast(*arguments[:4]), largest_of.plain(*arguments[:4]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)
    # where two partners are equally good up to rounding either may come first, also the last one that is kept and the next
    apart = np.abs(np.diff(kernel.plain(*arguments[:4], n_best + 1)[1], axis=1)) > 1e-9
    from_better = np.pad(apart[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    clear = apart & from_better & (plain[1] > 1e-9)
    np.testing.assert_array_equal(fast[0][clear], plain[0][clear])


def test_best_partners_are_kept_best_first_from_either_side():
    rng = np.random.default_rng(1)
    x, y = random_layer(rng, 300, 9, 0.3), random_layer(rng, 300, 15, 0.3)
    y[:, 4] = x[:, 2]
    found = candidates(Features.of(rows_of(x), 9), Features.of(rows_of(y), 15), 1)
    r = corrcoef(x, y)
    expected = {(i, int(j)) for i, j in enumerate(r.argmax(1))} | {(int(i), j) for j, i in enumerate(r.argmax(0))}
    expected = {pair for pair in expected if r[pair] > 0}
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected
    assert found.correlation[(found.first == 2) & (found.second == 4)] == pytest.approx(1)


def test_threads_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    first, second = (Features.of(rows_of(random_layer(rng, 200, 500, 0.05)), 500) for _ in range(2))
    found = []
    for threads in (1, 4):
        monkeypatch.setattr(compiled, "cpu_threads", lambda threads=threads: threads)
        found.append(candidates(first, second, 3))
    np.testing.assert_array_equal(found[0].correlation, found[1].correlation)
    np.testing.assert_array_equal(found[0].second, found[1].second)


def test_the_permutation_keeps_every_common_unit_and_moves_its_tokens():
    rng = np.random.default_rng(3)
    unit = np.concatenate([np.repeat([0, 1, 2], [50, 30, 8]), np.arange(3, 40)])[rng.permutation(125)]
    order = permuted_within(unit, rng, fewest=8)
    assert sorted(order.tolist()) == list(range(125))
    common = unit <= 2
    np.testing.assert_array_equal(unit[order][common], unit[common])
    assert (order[common] != np.flatnonzero(common)).mean() > 0.8
    assert (order[~common] != np.flatnonzero(~common)).mean() > 0.8  # rare units' tokens go among one another


def test_what_follows_the_unit_alone_survives_the_permutation_and_what_follows_the_item_does_not():
    rng = np.random.default_rng(4)
    unit = rng.integers(0, 10, 2000)
    state = rng.random(2000) < 0.2
    x = np.column_stack([unit == 3, state & (unit < 5)]).astype(np.float32)
    first, second = Features.of(rows_of(x), 2), Features.of(rows_of(x), 2)
    identity = np.arange(2000)
    np.testing.assert_allclose(largest(first, second, identity)[0], 1, atol=1e-9)
    permuted = largest(first, second, permuted_within(unit, rng))
    assert permuted[0][0] == pytest.approx(1)
    assert permuted[0][1] < 0.4
    assert permuted[1][1] < 0.4


def test_a_further_draw_exceeds_the_bound_once_in_a_hundred_times():
    rng = np.random.default_rng(6)
    draws = rng.normal(0.3, 0.02, (5, 20_000))
    bound = chance_bound(draws[:4])
    assert (draws[4] > bound).mean() == pytest.approx(0.01, abs=0.003)
    assert (bound > draws[:4].max(axis=0)).all()
    assert (draws[4] > draws[:4].max(axis=0)).mean() == pytest.approx(0.2, abs=0.02)  # why the largest is not enough


def test_correlations_within_a_layer_are_numpys():
    rng = np.random.default_rng(5)
    x = random_layer(rng, 100, 6, 0.4)
    x[:, 5] = 1.0  # never varies
    i, j = (each.ravel().astype(np.int32) for each in np.indices((6, 6)))
    found = same_layer_correlations(Features.of(rows_of(x), 6), i, j)
    np.testing.assert_allclose(found.reshape(6, 6), corrcoef(x, x), atol=1e-7)
