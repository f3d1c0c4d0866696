"""Mutual best partners, the one-to-one assignment, cosines and shared units, against brute force; and matches of permuted data."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.cross_layer.correlations import Candidates, Features, permuted_within
from sae_genomics.cross_layer.matching import (
    decoder_cosine,
    jaccard,
    match_layers,
    mutual_best,
    null_of,
    one_to_one,
    top_units,
)
from tests.cross_layer.made_up import random_layer, rows_of


@st.composite
def some_pairs(draw):
    """Candidates of up to five features a layer."""
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    i, j = np.nonzero(rng.random((n, m)) < 0.5)
    return Candidates(i.astype(np.int32), j.astype(np.int32), rng.uniform(0.01, 1, len(i))), n, m


def largest_total(pairs: Candidates, n: int, m: int) -> float:
    """Of all assignments, tried one by one."""
    r = np.zeros((n, m + n))
    r[pairs.first, pairs.second] = pairs.correlation
    return max(sum(r[i, j] for i, j in enumerate(order)) for order in permutations(range(m + n), n))


@settings(deadline=None, max_examples=60)
@given(some_pairs())
def test_the_assignment_has_the_largest_total_and_no_feature_twice(drawn):
    pairs, n, m = drawn
    chosen = pairs.take(one_to_one(pairs, n, m))
    assert len(np.unique(chosen.first)) == len(np.unique(chosen.second)) == len(chosen)
    if n <= 3:
        assert chosen.correlation.sum() == pytest.approx(largest_total(pairs, n, m))


@settings(deadline=None, max_examples=60)
@given(some_pairs())
def test_mutual_partners_are_each_others_best(drawn):
    pairs, n, m = drawn
    r = np.zeros((n, m))
    r[pairs.first, pairs.second] = pairs.correlation
    mutual = mutual_best(pairs, n, m)
    expected = [r[i].argmax() == j and r[:, j].argmax() == i for i, j in zip(pairs.first, pairs.second, strict=True)]
    np.testing.assert_array_equal(mutual, np.array(expected, dtype=bool))


def test_a_full_size_assignment_takes_seconds():
    rng, d = np.random.default_rng(0), 16_384
    order = rng.permutation(d).astype(np.int32)
    i = np.concatenate([np.arange(d), rng.integers(0, d, 3 * d)]).astype(np.int32)
    j = np.concatenate([order, rng.integers(0, d, 3 * d)]).astype(np.int32)
    r = np.concatenate([rng.uniform(0.8, 1, d), rng.uniform(0, 0.3, 3 * d)])
    _, at = np.unique(i.astype(np.int64) * d + j, return_index=True)
    pairs = Candidates(i[at], j[at], r[at])
    chosen = pairs.take(one_to_one(pairs, d, d))
    np.testing.assert_array_equal(chosen.second, order)


def test_planted_partners_are_found_one_to_one_and_permuted_data_has_none_beyond_the_null():
    rng = np.random.default_rng(1)
    n, d = 4000, 30
    unit = rng.integers(0, 20, n)
    x, y = random_layer(rng, n, d, 0.03), random_layer(rng, n, d, 0.03)
    y[:, :10] = x[:, 5:15] * rng.lognormal(0, 0.2, (n, 10))
    first, second = Features.of(rows_of(x), d), Features.of(rows_of(y), d)
    null = null_of(first, second, [permuted_within(unit, rng) for _ in range(4)])
    found = match_layers(first, second, null, 3, 0.0)
    strong = found.pairs.take(found.assigned & (found.pairs.correlation > 0.5))
    np.testing.assert_array_equal(strong.first, np.arange(5, 15))
    np.testing.assert_array_equal(strong.second, np.arange(10))
    assert (found.mutual <= found.linked).all()
    assert (found.assigned <= found.linked).all()

    permuted = Features.of(rows_of(y[permuted_within(unit, rng)]), d)
    chance = match_layers(
        first, permuted, null_of(first, permuted, [permuted_within(unit, rng) for _ in range(4)]), 1, 0.0
    )
    linked = np.unique(chance.pairs.first[chance.linked])
    assert len(linked) <= 2  # of 30, each by a chance of about one in a hundred
    assert not (chance.linked & (chance.pairs.correlation > 0.2)).any()


def test_cosines_and_shared_units():
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((4, 8)).astype(np.float32) for _ in range(2))
    a[3] = 0
    pairs = Candidates(np.array([0, 1, 3], np.int32), np.array([2, 1, 0], np.int32), np.ones(3))
    found = decoder_cosine(a, b, pairs)
    assert found[:2] == pytest.approx(
        [a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j]) for i, j in ((0, 2), (1, 1))]
    )
    assert np.isnan(found[2])

    unit = np.array([0, 0, 1, 2, 3, 4], np.int32)
    x = np.zeros((6, 4), np.float32)
    x[:, 0] = [1, 1, 1.5, 3, 0.1, 0]  # units by sum: 2 (3), 0 (2), 1 (1.5), 3
    x[:, 1] = [0, 0, 5, 4, 0, 0]
    tops = top_units(rows_of(x), unit, 4, 5, 3)
    assert tops.toarray()[0].tolist() == [1, 1, 1, 0, 0]
    shared = jaccard(tops, tops, Candidates(np.array([0, 1, 2], np.int32), np.array([1, 1, 3], np.int32), np.ones(3)))
    assert shared[:2] == pytest.approx([2 / 3, 1])
    assert np.isnan(shared[2])
