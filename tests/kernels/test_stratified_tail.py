"""The exact stratified test against whole numbers, against its plain version, and against shuffles within bins."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sae_genomics.kernels.arrays import Strata
from sae_genomics.kernels.plain.stratified_tail import stratified_tail as plain
from sae_genomics.kernels.stratified_tail import stratified_tail


def one_pair(bins: list[tuple[int, int, int]]) -> Strata:
    """bins: (N, K, n) of each."""
    named, members, listed = (np.array([each]) for each in zip(*bins, strict=True))
    return Strata(np.zeros(1, np.int64), named, members.astype(np.int32), listed.astype(np.int32)[None])


def tail_of(bins: list[tuple[int, int, int]], k: int, compute=stratified_tail) -> float:
    zero = np.zeros(1, np.int64)
    return float(compute(one_pair(bins), zero, zero, np.array([k]))[0])


def exact(bins: list[tuple[int, int, int]], k: int) -> Fraction:
    """With whole numbers: every way to share x genes, bin by bin."""
    ways = {0: 1}
    for genes, of_set, listed in bins:
        new: dict[int, int] = {}
        for before, n_ways in ways.items():
            for x in range(max(0, listed + of_set - genes), min(of_set, listed) + 1):
                new[before + x] = new.get(before + x, 0) + n_ways * comb(of_set, x) * comb(genes - of_set, listed - x)
        ways = new
    total = 1
    for genes, _, listed in bins:
        total *= comb(genes, listed)
    return Fraction(sum(n_ways for x, n_ways in ways.items() if x >= k), total)


@st.composite
def a_bin(draw):
    genes = draw(st.integers(0, 300))
    return genes, draw(st.integers(0, genes)), draw(st.integers(0, min(genes, 40)))


@settings(deadline=None, max_examples=150)
@given(st.lists(a_bin(), min_size=1, max_size=8), st.integers(0, 60))
def test_it_is_exact(bins, k):
    expected = float(exact(bins, k))
    for compute in (stratified_tail, plain):
        np.testing.assert_allclose(tail_of(bins, k, compute), expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    ("bins", "k"),
    [
        ([(150, 5, 5)] * 25, 125),  # every gene of the set is listed
        ([(150, 5, 6)] * 25, 110),
        ([(2000, 60, 50), (2000, 40, 50)], 80),
        ([(30, 30, 10), (15_000, 200, 90)], 70),  # a bin that is all set
        ([(20, 19, 18), (400, 3, 2)], 17),  # fewer than 17 in the first bin cannot be
    ],
)
def test_it_is_exact_far_out(bins, k):
    expected = float(exact(bins, k))
    for compute in (stratified_tail, plain):
        np.testing.assert_allclose(tail_of(bins, k, compute), expected, rtol=1e-9)


def test_far_out_is_far_out():
    assert 0 < tail_of([(150, 5, 5)] * 25, 125) < 1e-200


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5000), st.data())
def test_one_bin_is_fishers_test(genes, data):
    of_set, listed = data.draw(st.integers(0, genes)), data.draw(st.integers(0, min(genes, 100)))
    k = data.draw(st.integers(0, 100))
    found = tail_of([(genes, of_set, listed)], k)
    np.testing.assert_allclose(found, stats.hypergeom.sf(k - 1, genes, of_set, listed), rtol=1e-8, atol=1e-300)


def test_many_pairs_of_several_sources_are_each_their_own():
    rng = np.random.default_rng(0)
    n_lists, n_terms, n_sources, n_bins = 40, 60, 3, 12
    named = rng.integers(20, 90, (n_sources, n_bins))
    source = rng.integers(0, n_sources, n_terms)
    members = rng.integers(0, 5, (n_terms, n_bins)).astype(np.int32)
    listed = rng.integers(0, 6, (n_lists, n_sources, n_bins)).astype(np.int32)
    strata = Strata(source, named, members, listed)
    row, term = (each.ravel() for each in np.indices((n_lists, n_terms)))
    k = rng.integers(0, 8, len(row))
    found = stratified_tail(strata, row, term, k)
    np.testing.assert_allclose(found, plain(strata, row, term, k), rtol=1e-9)
    for i in range(0, len(row), 97):
        t = term[i]
        bins = list(
            zip(named[source[t]].tolist(), members[t].tolist(), listed[row[i], source[t]].tolist(), strict=True)
        )
        np.testing.assert_allclose(found[i], float(exact(bins, int(k[i]))), rtol=1e-9)


def test_no_pairs():
    none = np.empty(0, np.int64)
    assert len(stratified_tail(one_pair([(5, 2, 2)]), none, none, none)) == 0
    assert len(plain(one_pair([(5, 2, 2)]), none, none, none)) == 0
