"""Tails of sums of scores drawn without replacement: against the plain version, and against all drawings there are."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sae_genomics.kernels import sample_sums  # noqa: F401  its kernels register themselves
from sae_genomics.kernels.arrays import Populations, Samples
from sae_genomics.kernels.choice import KERNELS


def population(strata: list[np.ndarray]) -> Populations:
    """One list's scores, one array per stratum."""
    parts = [np.unique(-scores, return_counts=True) for scores in strata]
    ptr = np.cumsum([0, *(len(score) for score, _ in parts)])
    return Populations(
        ptr, -np.concatenate([score for score, _ in parts]), np.concatenate([n for _, n in parts]).astype(np.float64)
    )


def tails(strata: list[np.ndarray], drawn: list[int], totals: np.ndarray, version: str = "fast") -> np.ndarray:
    first = np.zeros(len(totals), np.int64)
    samples = Samples(first, first, np.asarray(totals, np.float64), np.array([drawn], np.int64))
    found: np.ndarray = getattr(KERNELS["sample_sums.upper_tails"], version)(population(strata), samples)
    return found


def all_sums(strata: list[np.ndarray], drawn: list[int]) -> np.ndarray:
    """The sum of every drawing."""
    sums = np.zeros(1)
    for scores, n in zip(strata, drawn, strict=True):
        of_stratum = np.array([scores[list(chosen)].sum() for chosen in combinations(range(len(scores)), n)])
        sums = (sums[:, None] + of_stratum).ravel()
    return sums


def savage(n: int, n_ranked: int) -> np.ndarray:
    """Savage scores of n genes, those after the ranked ones tied."""
    scores = np.cumsum(1 / np.arange(n, 0, -1))[::-1].copy()
    scores[n_ranked:] = scores[n_ranked:].mean() if n_ranked < n else 0
    return scores


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_both_versions_give_the_same(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    strata, drawn = [], []
    for _ in range(data.draw(st.integers(1, 6))):
        n = data.draw(st.integers(1, 40))
        scores = np.round(rng.exponential(1, n), data.draw(st.sampled_from([0, 1, 6])))
        strata.append(np.where(rng.random(n) < 0.5, scores, 0.1))
        drawn.append(data.draw(st.integers(0, n)))
    most = sum(np.sort(scores)[len(scores) - n :].sum() for scores, n in zip(strata, drawn, strict=True))
    least = sum(np.sort(scores)[:n].sum() for scores, n in zip(strata, drawn, strict=True))
    totals = np.append(np.linspace(least, most, 23), most)
    fast, plain = (tails(strata, drawn, totals, version) for version in ("fast", "plain"))
    np.testing.assert_allclose(fast, plain, rtol=1e-6, atol=1e-300)
    assert np.isfinite(fast).all()
    assert ((fast >= 0) & (fast <= 1)).all()


@pytest.mark.parametrize(("n", "n_ranked", "drawn"), [(20, 20, 5), (22, 12, 6), (18, 8, 8), (60, 25, 3)])
def test_tails_are_those_of_all_drawings(n, n_ranked, drawn):
    scores = savage(n, n_ranked)
    sums = np.sort(all_sums([scores], [drawn]))
    for share in (0.1, 0.03, 0.01, 0.003, 0.001):
        total = sums[-int(share * len(sums))]
        at_least, above = (sums >= total - 1e-9).mean(), (sums > total + 1e-9).mean()
        found = tails([scores], [drawn], np.array([total]))[0]
        assert found == pytest.approx((at_least + above) / 2, rel=0.15)


def test_strata_are_drawn_from_one_by_one():
    rng = np.random.default_rng(3)
    scores = savage(30, 20)
    strata = [part[:, None].ravel() for part in np.split(rng.permutation(scores), 3)]
    strata[0] = np.sort(scores)[::-1][:10]  # one stratum has all the highest
    drawn = [4, 2, 1]
    sums = np.sort(all_sums(strata, drawn))
    for share in (0.1, 0.01, 0.001):
        total = sums[-int(share * len(sums))]
        exact = ((sums >= total - 1e-9).mean() + (sums > total + 1e-9).mean()) / 2
        assert tails(strata, drawn, np.array([total]))[0] == pytest.approx(exact, rel=0.15)
        assert tails([np.concatenate(strata)], [7], np.array([total]))[0] < exact / 2  # which takes no notice of strata


def test_the_largest_sum_is_counted_and_nothing_is_below_one_drawing():
    scores = savage(15_000, 4_000)
    for drawn in (3, 10, 100):
        largest = scores[:drawn].sum()
        found = tails([scores], [drawn], np.array([largest, largest - 1e-6]))
        one = 1 / comb(15_000, drawn)
        assert found[0] == pytest.approx(one, rel=1e-6)
        assert (found >= one * (1 - 1e-9)).all()
    tied = np.array([3.0, 2.0, 2.0, 2.0, 0.0, 0.0])
    assert tails([tied], [3], np.array([7.0]))[0] == pytest.approx(3 / 20)
    assert tails([tied], [6], np.array([9.0]))[0] == 1.0  # all are drawn
    assert tails([np.ones(6)], [3], np.array([3.0]))[0] == 1.0  # all are tied


def test_far_tails_fall_and_agree_with_the_gamma_distribution():
    # -log of a uniform rank is exponential: the sum of few of many Savage scores is nearly gamma
    scores = savage(1_000_000, 1_000_000)
    nodes = np.array([part.mean() for part in np.array_split(scores[1000:], 4000)])
    strata = Populations(
        np.array([0, 5000]),
        np.concatenate([scores[:1000], nodes]),
        np.concatenate([np.ones(1000), [len(part) for part in np.array_split(scores[1000:], 4000)]]),
    )
    totals = np.linspace(8, 18, 40)  # beyond it shows that no rank is above the first
    first = np.zeros(len(totals), np.int64)
    found = KERNELS["sample_sums.upper_tails"].fast(strata, Samples(first, first, totals, np.array([[4]])))
    np.testing.assert_allclose(found, stats.gamma.sf(totals, 4), rtol=0.05)
    assert (np.diff(found) < 0).all()
