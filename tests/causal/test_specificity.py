"""Standardised differences: over items and groups, with intervals that cover."""

import numpy as np
import pytest
from scipy import stats

from sae_genomics.causal.over_items import over_groups
from sae_genomics.causal.specificity import specificity_of, standardised, typical_size


def test_formula():
    d = np.array([1.0, 2.0, 4.0, 5.0])
    found = specificity_of(d, 0.5)
    assert found.value == pytest.approx(6)
    assert found.n == 4
    low, high = stats.t.interval(0.95, 3, loc=3, scale=d.std(ddof=1) / 2)
    assert (found.low, found.high) == pytest.approx((low / 0.5, high / 0.5))


def test_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        d = generator.standard_normal(6) + 0.7
        found = specificity_of(d, 0.3)
        covered += found.low * 0.3 <= 0.7 <= found.high * 0.3
    assert 925 <= covered <= 975


def test_items_that_are_alike_do_not_make_a_small_effect_large():
    assert specificity_of(np.full(3, 1e-9), 0.1).value == pytest.approx(1e-8)
    assert np.isnan(specificity_of(np.ones(3), 0.0).value)  # no random direction changes anything: there is no scale


def test_nothing_changes():
    found = specificity_of(np.zeros(4), 0.0)
    assert found.value == 0
    assert np.isnan(found.low)


def test_one_item_has_no_specificity_and_two_have_no_interval():
    assert np.isnan(specificity_of(np.array([3.0, np.nan]), 0.1).value)
    two = specificity_of(np.array([3.0, 4.0]), 0.1)
    assert np.isfinite(two.value)
    assert np.isnan(two.low)


def test_groups_are_the_unit_and_each_counts_once():
    d = np.array([1.0, 1.0, 1.0, 1.0, 5.0, np.nan])
    group = np.array([7, 7, 7, 7, 2, 2])
    means = over_groups(d, group)
    assert sorted(means.tolist()) == [1.0, 5.0]
    assert specificity_of(means, 1.0).n == 2
    both = over_groups(np.column_stack([d, 2 * d]), group)
    np.testing.assert_allclose(both[:, 1], 2 * both[:, 0])
    np.testing.assert_array_equal(over_groups(d, None), d)


def test_items_of_one_group_do_not_narrow_the_interval():
    generator = np.random.default_rng(1)
    of_group = generator.standard_normal(5)
    d, group = np.repeat(of_group, 20), np.repeat(np.arange(5), 20)
    by_item, by_group = specificity_of(d, 0.1), specificity_of(over_groups(d, group), 0.1)
    assert by_group.high - by_group.low > 3 * (by_item.high - by_item.low)


def test_columns_are_independent_of_one_another():
    generator = np.random.default_rng(2)
    d = generator.standard_normal((6, 4))
    d[2, 1] = np.nan
    alone = [standardised(d[:, [column]], 0.2)[0] for column in range(4)]
    np.testing.assert_allclose(standardised(d, 0.2), alone)


def test_typical_size_is_the_median_root_mean_square():
    d = np.array([[3.0, 1.0, 2.0], [3.0, -1.0, np.nan]])
    assert typical_size(d) == 2.0
    assert typical_size(np.full((2, 2), np.nan)) == 0.0
