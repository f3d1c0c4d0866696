from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from sklearn.metrics import roc_auc_score

from sae_genomics.associations.mann_whitney import exact_tail, group_tests


def hedges_g(inside, outside):
    n1, n2 = len(inside), len(outside)
    pooled = np.sqrt(((n1 - 1) * inside.var(ddof=1) + (n2 - 1) * outside.var(ddof=1)) / (n1 + n2 - 2))
    return (inside.mean() - outside.mean()) / pooled * (1 - 3 / (4 * (n1 + n2) - 9))


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(4, 60),
    st.integers(2, 4),
    st.sampled_from(["sparse", "dense", "coarse", "negative"]),
)
def test_tests_are_those_of_scipy_and_sklearn(seed, n, n_groups, kind):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, n_groups, n)
    dense = rng.lognormal(0, 1, (n, 5)).astype(np.float32)
    if kind == "sparse":
        dense *= rng.random((n, 5)) < rng.random(5)
    elif kind == "coarse":
        dense = np.ceil(dense * 2)
    elif kind == "negative":
        dense -= 2
    found = group_tests(sparse.csc_matrix(dense), group, n_groups)
    for column in range(5):
        for t in range(n_groups):
            inside, outside = dense[group == t, column].astype(float), dense[group != t, column].astype(float)
            if min(len(inside), len(outside)) < 2:
                assert np.isnan(found.p_value[column, t])
                assert np.isnan(found.auroc[column, t])
                continue
            expected = stats.mannwhitneyu(inside, outside)
            np.testing.assert_allclose(found.p_value[column, t], expected.pvalue, rtol=1e-9)
            np.testing.assert_allclose(found.auroc[column, t], roc_auc_score(group == t, dense[:, column]), rtol=1e-9)
            np.testing.assert_allclose(found.mean_in[column, t], inside.mean(), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(found.mean_out[column, t], outside.mean(), rtol=1e-6, atol=1e-6)
            if inside.std() + outside.std() > 0:
                np.testing.assert_allclose(
                    found.effect_size[column, t], hedges_g(inside, outside), rtol=1e-4, atol=1e-6
                )


@pytest.mark.parametrize(("n1", "n2"), [(1, 1), (2, 3), (3, 2), (8, 8), (8, 120), (40, 7)])
def test_exact_tail_counts_arrangements(n1, n2):
    tail = exact_tail(n1, n2)
    assert tail[0] == 1
    assert len(tail) == n1 * n2 + 1
    ranks = np.arange(1.0, n1 + n2 + 1)
    for u in {0, n1 * n2, n1 * n2 // 2}:  # the extreme ones, and whatever ranking gives the middle one
        inside = _with_statistic(u, n1, n2)
        expected = stats.mannwhitneyu(inside, np.setdiff1d(ranks, inside), alternative="greater", method="exact")
        assert expected.statistic == u
        np.testing.assert_allclose(tail[u], expected.pvalue, rtol=1e-12)


def _with_statistic(u, n1, n2):
    """Ranks of a group whose U is u: from the lowest, lift members from the top as far as needed."""
    ranks, left = list(range(1, n1 + 1)), u
    for i in reversed(range(n1)):
        lift = min(left, n2)
        ranks[i] += lift
        left -= lift
    return np.array(ranks, dtype=float)


def test_exact_tail_needs_whole_numbers_beyond_64_bits():
    tail = exact_tail(8, 40_000)
    np.testing.assert_allclose(tail[-1], 1 / comb(40_008, 8), rtol=1e-12)
    assert (np.diff(tail) <= 0).all()
    np.testing.assert_allclose(tail[160_001] + tail[160_000], 1.0, atol=1e-12)  # symmetric about the middle


def test_silent_columns_and_constant_groups():
    values = np.zeros((6, 3), np.float32)
    values[:3, 1] = 2.0  # two constants: no spread on either side
    values[0, 2] = 1.0
    found = group_tests(sparse.csc_matrix(values), np.array([0, 0, 0, 1, 1, 1]), 2)
    assert found.auroc[0].tolist() == [0.5, 0.5]
    assert found.p_value[0].tolist() == [1.0, 1.0]
    assert found.effect_size[0].tolist() == [0.0, 0.0]
    assert found.auroc[1].tolist() == [1.0, 0.0]
    assert np.isnan(found.effect_size[1]).all()
    assert np.isfinite(found.effect_size[2]).all()


def test_cells_of_no_group_are_left_out():
    rng = np.random.default_rng(0)
    values, group = rng.random((20, 2)).astype(np.float32), np.repeat([0, 1, -1], [7, 8, 5])
    with_them = group_tests(sparse.csc_matrix(values), group, 2)
    without = group_tests(sparse.csc_matrix(values[:15]), group[:15], 2)
    np.testing.assert_array_equal(with_them.p_value, without.p_value)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_cells_give_nan(n):
    found = group_tests(sparse.csc_matrix(np.ones((n, 2), np.float32)), np.zeros(n, int), 2)
    assert np.isnan(found.auroc).all()
    assert np.isnan(found.p_value).all()
