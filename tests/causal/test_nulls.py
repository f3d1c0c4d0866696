"""What the nulls draw, and p: uniform when the null holds, small for what is planted, also where features share draws."""

import numpy as np
import pytest

from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.causal.nulls import OWN_DRAWS, equal_features, p_values
from sae_genomics.concepts.resampling import random_directions


def test_directions_are_on_the_sphere_and_prefer_none():
    drawn = random_directions(4000, 3, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, rtol=1e-6)
    assert np.abs(drawn.mean(axis=0)).max() < 0.05
    np.testing.assert_allclose((drawn**2).mean(axis=0), 1 / 3, atol=0.02)


def test_equal_features_are_the_nearest_in_rate_and_mean():
    rate = np.array([0.01, 0.011, 0.5, 0.0, 0.009, 0.01])
    mean = np.array([2.0, 2.1, 2.0, 2.0, 1.9, 40.0])
    every = np.ones(6, bool)
    assert set(equal_features(rate, mean, 0, 2, every).tolist()) == {1, 4}
    assert 3 not in equal_features(rate, mean, 0, 9, every)
    assert 0 not in equal_features(rate, mean, 0, 9, every)
    assert equal_features(rate, mean, 0, 9, np.arange(6) == 5).tolist() == [5]
    assert len(equal_features(rate, mean, 3, 9, every)) == 0  # one that never fires has none of its kind


def test_p_of_own_draws_counts_those_at_least_as_far_from_zero():
    draws = np.tile(np.linspace(-1, 1, OWN_DRAWS), (2, 1))
    n_far = int((np.abs(draws[0]) >= 0.5).sum())
    found = p_values(np.array([0.5, -9.0]), draws)
    assert found.tolist() == [(1 + n_far) / (1 + OWN_DRAWS), 1 / (1 + OWN_DRAWS)]


def test_a_tie_counts_against_the_feature():
    assert p_values(np.array([1.0]), np.ones((1, OWN_DRAWS)))[0] == 1.0


@pytest.mark.parametrize("n_draws", [6, OWN_DRAWS])
def test_p_is_uniform_when_the_null_holds_whatever_the_features_scales(n_draws):
    generator = np.random.default_rng(1)
    found = []
    for _ in range(60):
        scale = np.exp(generator.standard_normal(20))[:, None]  # features differ in how much they change
        drawn = scale * generator.standard_normal((20, n_draws + 1))
        found.append(p_values(drawn[:, 0], drawn[:, 1:]))
    p = np.concatenate(found)
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=0.03)


def test_planted_features_are_found_and_null_features_are_not():
    """Four nulls of 14 features, 5 of them planted: the largest p and q over all 14."""
    generator = np.random.default_rng(2)
    found, false = 0, 0
    for _ in range(100):
        drawn = generator.standard_normal((4, 14, 7))
        observed = generator.standard_normal(14)
        observed[:5] = 12
        p = np.max([p_values(observed, draws[:, 1:]) for draws in drawn], axis=0)
        q = benjamini_hochberg(p)
        found += int((q[:5] <= 0.05).sum())
        false += int((q[5:] <= 0.05).sum())
    assert found >= 0.9 * 500
    assert false <= 0.05 * 900


def test_nothing_that_changes_is_no_effect():
    assert p_values(np.zeros(3), np.zeros((3, 6))).tolist() == [1.0, 1.0, 1.0]


def test_without_a_specificity_or_draws_there_is_no_p():
    draws = np.random.default_rng(3).standard_normal((3, 6))
    draws[1] = np.nan
    found = p_values(np.array([np.nan, 1.0, 1.0]), draws)
    assert np.isnan(found).tolist() == [True, True, False]
