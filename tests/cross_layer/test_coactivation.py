"""Features that fire together: planted pairs are found, chance and shared units give none, and the null is uniform."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import chisquare

from sae_genomics.cross_layer.coactivation import High, high_items, observed_pairs, signed_g, together
from sae_genomics.cross_layer.margins import draws, expected_pairs


def _high(fires: np.ndarray) -> High:
    """A table whose features never share a unit."""
    return High(fires, csr_matrix((0, fires.shape[1]), dtype=np.float32), np.zeros(0, np.int64))


def test_draws_keep_both_margins_in_every_stratum() -> None:
    generator = np.random.default_rng(1)
    fires = generator.random((60, 25)) < generator.random(25)
    stratum = np.repeat([0, 1, 2], 20)
    tables = list(draws(fires, stratum, 3, [7]))
    for table in tables:
        np.testing.assert_array_equal(table.sum(axis=1), fires.sum(axis=1))
        for number in range(3):
            np.testing.assert_array_equal(table[stratum == number].sum(axis=0), fires[stratum == number].sum(axis=0))
        assert (table != fires).any()
    assert (tables[0] != tables[1]).any()


def test_draws_reach_every_table_of_the_margins_equally_often() -> None:
    fires = np.eye(3, dtype=bool)  # six tables: the permutations
    seen = Counter(table.tobytes() for table in draws(fires, np.zeros(3, np.int64), 3000, [3]))
    assert len(seen) == 6
    assert chisquare(list(seen.values())).pvalue > 0.001


def test_expected_counts_are_the_mean_of_the_draws() -> None:
    generator = np.random.default_rng(2)
    weight = generator.random(80)[:, None] + generator.random(40)[None]
    fires = generator.random((80, 40)) < weight / 2
    stratum = np.repeat([0, 1], 40)
    expected = expected_pairs(fires, stratum)
    tables = [table.astype(float) for table in draws(fires, stratum, 300, [4])]
    mean = np.mean([table.T @ table for table in tables], axis=0)
    often = (mean > 5) & ~np.eye(40, dtype=bool)
    assert np.abs(expected / mean - 1)[often].max() < 0.1
    rates = fires.mean(axis=0)
    naive = 80 * np.outer(rates, rates)  # without the rows' margins
    assert np.abs(expected / mean - 1)[often].mean() < np.abs(naive / mean - 1)[often].mean() / 2
    np.testing.assert_allclose(expected_pairs(fires, stratum, fires)[often], expected[often], rtol=0.1)


def test_g_is_that_of_the_textbook() -> None:
    from scipy.stats import chi2_contingency

    both, first, second, n = 30.0, 40.0, 50.0, 100.0
    cells = np.array([[both, first - both], [second - both, n - first - second + both]])
    known = chi2_contingency(cells, correction=False, lambda_="log-likelihood").statistic
    found = signed_g(np.array([both]), np.array([first * second / n]), np.array([first]), np.array([second]), n)
    assert found[0] == pytest.approx(known)


def test_p_values_are_uniform_on_independent_features() -> None:
    generator = np.random.default_rng(6)
    items = generator.beta(2, 2, 300)[:, None]  # items differ in how many features they have: the null knows that
    fires = generator.random((300, 40)) < items
    found = together(_high(fires), np.zeros(300, np.int64), 19, [8], most=10_000)
    everything = together(_high(fires), np.zeros(300, np.int64), 19, [9], most=10_000)
    assert found.n_pairs == 40 * 39 // 2
    assert len(found.pairs) + len(everything.pairs) <= 1  # above the maximum of 19 draws: once in twenty
    g = signed_g(*_arrays(fires), 300)
    null = next(draws(fires, np.zeros(300, np.int64), 1, [11]))
    other = signed_g(*_arrays(fires, null), 300)
    quantiles = np.array([0.1, 0.5, 0.9])
    reached = [(g <= value).mean() for value in np.quantile(other, quantiles)]
    np.testing.assert_allclose(reached, quantiles, atol=0.06)


def _arrays(fires: np.ndarray, table: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    expected = expected_pairs(fires, np.zeros(len(fires), np.int64))
    pairs = np.triu_indices(fires.shape[1], 1)
    counts = observed_pairs(_high(fires if table is None else table))
    sums = fires.sum(axis=0).astype(float)
    return counts[pairs], expected[pairs], sums[pairs[0]], sums[pairs[1]]


def test_a_planted_pair_is_found_and_a_shared_group_is_none() -> None:
    generator = np.random.default_rng(3)
    fires = generator.random((400, 30)) < 0.3
    state = generator.random(400) < 0.4
    fires[:, 4], fires[:, 9] = state ^ (generator.random(400) < 0.05), state ^ (generator.random(400) < 0.05)
    group = np.repeat(np.arange(4), 100)
    fires[:, 20], fires[:, 21] = (generator.random((2, 400)) < np.where(group < 2, 0.9, 0.05)).astype(bool)
    pooled = together(_high(fires), np.zeros(400, np.int64), 19, [1], most=100).pairs
    assert {(4, 9), (20, 21)} <= set(zip(pooled["first"], pooled["second"], strict=True))
    within = together(_high(fires), group, 39, [1], most=100).pairs
    assert set(zip(within["first"], within["second"], strict=True)) == {(4, 9)}
    assert within["pmi"].iloc[0] > 0.8
    assert within["q_value"].iloc[0] < 0.05


def test_features_of_one_unit_do_not_fire_together() -> None:
    """Unit 0 is in half of the items and makes features 0 and 1 fire in half of those: neither its presence nor its state relates them."""
    generator = np.random.default_rng(4)
    n_items, n_units = 300, 8
    present = generator.random((n_items, n_units)) < 0.5
    item, unit = np.nonzero(present)
    state = generator.random(n_items) < 0.5
    active = np.zeros((len(item), 4), np.float32)
    active[(unit == 0) & state[item], 0] = active[(unit == 0) & state[item], 1] = 1.0
    active[(unit == 1) & state[item], 2] = 2.0
    active[unit == 2, 3] = 3.0  # the unit alone decides
    high = high_items(csr_matrix(active), item, unit, n_items)
    np.testing.assert_array_equal(high.fires[:, 0], present[:, 0] & state)
    assert not high.fires[:, 3].any()
    counts = observed_pairs(high)
    assert counts[0, 1] == 0  # the same unit alone
    assert counts[0, 2] == (present[:, 0] & present[:, 1] & state).sum()


def test_pairs_of_two_layers_are_found() -> None:
    generator = np.random.default_rng(10)
    here, there = (generator.random((300, 15)) < 0.3 for _ in range(2))
    there[:, 7] = here[:, 2] ^ (generator.random(300) < 0.05)
    found = together(_high(here), np.zeros(300, np.int64), 19, [1], most=100, other=_high(there)).pairs
    assert list(zip(found["first"], found["second"], strict=True)) == [(2, 7)]
