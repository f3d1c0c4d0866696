"""Features that fire together: planted pairs are found, chance and shared units give none, and the null is uniform."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import chisquare

from sae_genomics.cross_layer import coactivation
from sae_genomics.cross_layer.coactivation import LEAST_EXPECTED, High, high_items, shrunk_pmi, signed_g, together
from sae_genomics.cross_layer.margins import draws, expected_factors


def _high(fires: np.ndarray) -> High:
    """A table whose features never share a unit."""
    return High(fires, csr_matrix((0, fires.shape[1]), dtype=np.float32), np.zeros(0, np.int64))


def expected_pairs(fires: np.ndarray, stratum: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    left, right = expected_factors(fires, stratum, other)
    return left.T.astype(float) @ right


def observed_pairs(high: High) -> np.ndarray:
    """Items that are high in both, without those where one unit alone makes both fire."""
    both = high.fires.astype(float).T @ high.fires
    return np.asarray(both - (high.alone.T @ high.alone).toarray())


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


@pytest.mark.parametrize("between", [False, True])
def test_pairs_are_those_of_whole_matrices(monkeypatch: pytest.MonkeyPatch, between: bool) -> None:
    """Counts, expectations, G and what the draws give, computed with matrices of all pairs."""
    monkeypatch.setattr(coactivation, "ROWS_AT_ONCE", 7)
    n_items, n_draws, n_units = 230, 7, 6
    layers, generator = [], np.random.default_rng(20)
    item, unit = (each.ravel() for each in np.indices((n_items, n_units)))
    shared = generator.random(n_items) < 0.4
    for size in (40, 33):
        active = (generator.random((len(item), size)) < 0.07).astype(np.float32)
        active[:, ::8] *= shared[item, None]
        active[:, 1::8] = np.maximum(active[:, 1::8], (shared[item] & (unit == 2))[:, None])
        layers.append(high_items(csr_matrix(active), item, unit, n_items))
    stratum = np.arange(n_items) % 2
    high, other = layers[0], layers[1] if between else layers[0]
    found = together(high, stratum, n_draws, [3], 10_000, other if between else None)

    expected = expected_pairs(high.fires, stratum, other.fires if between else None)
    looked = expected >= LEAST_EXPECTED
    if not between:
        looked = np.triu(looked, 1)
    rows, columns = np.nonzero(looked)
    sums = [each.fires.sum(axis=0).astype(float) for each in (high, other)]

    def g_of(both: np.ndarray) -> np.ndarray:
        return signed_g(both[rows, columns], expected[rows, columns], sums[0][rows], sums[1][columns], n_items)

    observed = high.fires.astype(float).T @ other.fires - (high.alone.T @ other.alone).toarray()
    first = list(draws(high.fires, stratum, n_draws, [3, 1]))
    second = list(draws(other.fires, stratum, n_draws, [3, 2])) if between else first
    null = [g_of(one.astype(float).T @ two) for one, two in zip(first, second, strict=True)]
    np.testing.assert_allclose(found.strongest, [each.max() for each in null], rtol=1e-4)
    g = g_of(observed)
    kept = np.flatnonzero(g > max(each.max() for each in null))
    kept = kept[np.argsort(-g[kept], kind="stable")]
    assert len(kept) > 5
    assert found.n_pairs == len(rows)
    np.testing.assert_array_equal(found.pairs["first"], rows[kept])
    np.testing.assert_array_equal(found.pairs["second"], columns[kept])
    np.testing.assert_allclose(found.pairs["g"], g[kept], rtol=1e-4)
    at = rows[kept], columns[kept]
    np.testing.assert_array_equal(found.pairs["n_both"], observed[at])
    np.testing.assert_allclose(found.pairs["pmi"], shrunk_pmi(observed[at], expected[at]), rtol=1e-4)
    np.testing.assert_allclose(found.pairs["p_value"], 1 / (1 + len(rows) * n_draws))  # no draw reaches them
    np.testing.assert_allclose(found.pairs["q_value"], len(rows) / (1 + len(rows) * n_draws) / len(kept))
    assert len(found.null) == 5
    last = np.sort(null[-1])[::-1][: len(kept)]
    i, j, pmi = found.null[-1]
    both = first[-1].astype(float).T @ second[-1]
    strongest = signed_g(both[i, j], expected[i, j], sums[0][i], sums[1][j], n_items)
    np.testing.assert_allclose(strongest, last, rtol=1e-4)
    np.testing.assert_allclose(pmi, np.maximum(shrunk_pmi(both[i, j], expected[i, j]), 1e-6), rtol=1e-3, atol=1e-5)


def test_the_strongest_pairs_are_kept_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(21)
    state = generator.random((300, 3)) < 0.4  # three modules: of one alone the items' sums would tell everything
    fires = (generator.random((300, 45)) < 0.1) ^ np.repeat(state, 15, axis=1)
    monkeypatch.setattr(coactivation, "ROWS_AT_ONCE", 4)
    every = together(_high(fires), np.zeros(300, np.int64), 19, [1], most=1000).pairs
    few = together(_high(fires), np.zeros(300, np.int64), 19, [1], most=20).pairs
    assert len(every) > 200
    columns = ["first", "second", "g", "n_both"]
    np.testing.assert_array_equal(few[columns], every[columns][:20])


def test_a_table_without_pairs_gives_none() -> None:
    found = together(_high(np.eye(12, dtype=bool)), np.zeros(12, np.int64), 9, [1], most=10)
    assert (found.n_pairs, len(found.pairs), found.null) == (0, 0, [])
    assert found.threshold == -np.inf
