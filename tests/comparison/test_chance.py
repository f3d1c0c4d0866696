"""The number that two models share by chance: exact, beside counting every way and beside drawing."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from sae_genomics.comparison.chance import distribution, shared, strata_of


def counted(totals: list[int], of_first: list[int], of_second: list[int]) -> dict[int, Fraction]:
    """By going through every choice of the second model, the first model's being the first units of each stratum."""
    per_stratum = [
        [sum(unit < a for unit in chosen) for chosen in combinations(range(total), b)]
        for total, a, b in zip(totals, of_first, of_second, strict=True)
    ]
    ways = [sum(each) for each in product(*per_stratum)]
    return {x: Fraction(ways.count(x), len(ways)) for x in set(ways)}


@pytest.mark.parametrize(
    ("totals", "of_first", "of_second"),
    [([6], [3], [2]), ([5, 4], [2, 3], [3, 1]), ([4, 4, 3], [1, 4, 0], [2, 2, 3]), ([3, 5], [3, 0], [3, 5])],
)
def test_it_is_what_counting_every_way_gives(totals: list[int], of_first: list[int], of_second: list[int]) -> None:
    got = distribution(np.array(totals), np.array(of_first), np.array(of_second))
    for x, share in counted(totals, of_first, of_second).items():
        assert got[x] == pytest.approx(float(share), rel=1e-12)
    assert got.sum() == pytest.approx(1, rel=1e-12)


def test_one_stratum_is_fishers_test_far_into_the_tail() -> None:
    first = np.arange(2000) < 120
    got = shared(first, first, np.zeros(2000, dtype=np.int64))
    assert (got.n_tested, got.n_first, got.n_second, got.n_shared) == (2000, 120, 120, 120)
    assert got.p_value == pytest.approx(stats.hypergeom.pmf(120, 2000, 120, 120), rel=1e-9)
    assert 0 < got.p_value < 1e-150
    assert got.expected == pytest.approx(7.2)


def test_models_that_find_large_terms_share_no_more_than_chance_gives() -> None:
    """Both find the terms of one stratum and have nothing else in common. Without strata that would look like agreement."""
    generator = np.random.default_rng(1)
    strata = np.repeat([0, 1], [900, 100])
    both, without = [], []
    for _ in range(300):
        first, second = (generator.random(1000) < np.where(strata == 1, 0.4, 0.01) for _ in range(2))
        both.append(shared(first, second, strata).p_value)
        without.append(shared(first, second, np.zeros_like(strata)).p_value)
    assert np.mean(np.array(both) < 0.05) <= 0.07
    assert np.mean(np.array(without) < 0.05) > 0.9


def test_the_interval_and_the_mean_are_those_of_draws() -> None:
    generator = np.random.default_rng(2)
    strata = np.repeat(np.arange(3), [200, 100, 50])
    first, second = generator.random(350) < 0.2, generator.random(350) < 0.3
    got = shared(first, second, strata)
    draws = []
    for _ in range(4000):
        order = np.lexsort((generator.random(350), strata))  # strata stand in order already
        draws.append(int((first & second[order]).sum()))
    assert got.expected == pytest.approx(np.mean(draws), rel=0.02)
    assert abs(got.low - np.quantile(draws, 0.025)) <= 1
    assert abs(got.high - np.quantile(draws, 0.975)) <= 1


def test_strata_have_one_group_and_similar_sizes() -> None:
    generator = np.random.default_rng(3)
    group, size = np.repeat([0, 1, 2], [300, 65, 5]), generator.permutation(370)
    strata = strata_of(group, size)
    counts = np.bincount(strata)
    assert len(counts) == 10 + 3 + 1
    assert counts[:13].min() >= 20
    for stratum in range(len(counts)):
        assert len(set(group[strata == stratum])) == 1
    for lower in range(9):
        assert size[strata == lower].max() < size[strata == lower + 1].min()


def test_units_of_one_size_stay_together_whatever_their_order() -> None:
    size = np.repeat([3, 4, 9], [150, 30, 20])
    strata = strata_of(np.zeros(200, dtype=np.int64), size)
    assert [len(set(strata[size == each])) for each in (3, 4, 9)] == [1, 1, 1]
    assert sorted(set(strata)) == list(range(len(set(strata))))


def test_nothing_tested_is_no_error() -> None:
    none = np.zeros(0, dtype=bool)
    got = shared(none, none, strata_of(np.zeros(0, dtype=np.int64), np.zeros(0)))
    assert (got.n_tested, got.n_shared, got.p_value) == (0, 0, 1.0)
