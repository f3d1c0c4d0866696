"""Thresholds by a plain search, halves that respect groups, intervals that hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from sae_genomics.concepts.choosing import RULES, TEST, VALIDATION, Scored, choose, halves, measure, measure_by_both
from sae_genomics.concepts.resampling import grouped_mean, grouped_share


def scored(rng: np.random.Generator, n: int = 300, concepts: int = 4, n_groups: int | None = None) -> Scored:
    positive = rng.random((n, concepts)) < 0.3
    score = np.round(rng.normal(size=(n, concepts)) + 1.5 * positive, 1)  # with ties
    group = np.arange(n) if n_groups is None else rng.integers(0, n_groups, n)
    return Scored(score, positive, rng.random((n, concepts)) < 0.9, group)


def plain(score: np.ndarray, positive: np.ndarray) -> list[np.ndarray]:
    """Which items each rule takes, by trying every score as threshold."""
    options = []
    for threshold in [*np.unique(score)[::-1]]:
        above = score >= threshold
        true = (above & positive).sum()
        options.append((above, 2 * true / (above.sum() + positive.sum()), true / positive.sum(), (above & ~positive).sum() / (~positive).sum()))  # fmt: skip
    best = max(range(len(options)), key=lambda index: (options[index][1], -index))
    recall = next(index for index, each in enumerate(options) if each[2] >= 0.9)
    few = [index for index, each in enumerate(options) if each[3] <= 0.05]
    return [options[best][0], options[recall][0], options[few[-1]][0] if few else np.zeros(len(score), bool)]


def test_the_rules_are_those_of_a_plain_search() -> None:
    known = scored(np.random.default_rng(0))
    thresholds = choose(known)
    assert thresholds.shape == (len(RULES), 4)
    for concept in range(4):
        used = known.counted[:, concept]
        score, positive = known.score[used, concept], known.positive[used, concept]
        for threshold, taken in zip(thresholds[:, concept], plain(score, positive), strict=True):
            assert ((score >= threshold) == taken).all()


def test_a_threshold_that_no_item_may_pass() -> None:
    """The best score is that of an item without the concept, and one in three is more than 0.05."""
    known = Scored(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([[False], [True], [False], [False]]), np.ones((4, 1), bool), np.arange(4))  # fmt: skip
    assert not (known.score >= choose(known)[RULES.index("fpr_0.05")]).any()


def test_no_threshold_without_items_of_either_side() -> None:
    known = scored(np.random.default_rng(1), concepts=2)
    known.positive[:, 0], known.positive[:, 1] = False, True
    assert np.isnan(choose(known)).all()


def test_whole_groups_go_to_a_half_and_both_halves_have_the_concept() -> None:
    rng = np.random.default_rng(2)
    known = scored(rng, n_groups=40)
    half = halves(known, rng)
    for group in range(40):
        assert (half[known.group == group] == half[known.group == group][:1]).all()
    for concept in range(4):
        counted = known.positive[:, concept] & known.counted[:, concept]
        shares = [(counted & (half[:, concept] == each)).sum() / counted.sum() for each in (VALIDATION, TEST)]
        assert min(shares) > 0.4


def test_precision_and_recall_are_counts() -> None:
    known = scored(np.random.default_rng(3), n_groups=30)
    found = measure(known, np.full(4, 0.7))
    for concept in range(4):
        used = known.counted[:, concept]
        above, positive = known.score[used, concept] >= 0.7, known.positive[used, concept]
        true = (above & positive).sum()
        assert found["precision"].value[concept] == pytest.approx(true / above.sum())
        assert found["recall"].value[concept] == pytest.approx(true / positive.sum())
        assert found["f1"].value[concept] == pytest.approx(2 * true / (above.sum() + positive.sum()))
        assert found["false_positive_rate"].value[concept] == pytest.approx(
            (above & ~positive).sum() / (~positive).sum()
        )
        for each in found.values():
            assert each.low[concept] <= each.value[concept] <= each.high[concept]


def test_the_wider_of_two_intervals_is_taken() -> None:
    rng = np.random.default_rng(6)
    n, score = 400, rng.random(400)
    one, two = np.arange(n) % 40, np.arange(n) // 100  # rows of one group of the second kind are alike
    positive = (score + 0.4 * (two % 2) > 0.8)[:, None]
    known = Scored(score[:, None], positive, np.ones((n, 1), bool), one)
    threshold = np.array([0.6])
    first, second = measure(known, threshold), measure(Scored(score[:, None], positive, known.counted, two), threshold)
    found = measure_by_both(known, threshold, two)
    for name, each in found.items():
        assert each.low[0] == min(first[name].low[0], second[name].low[0])
        assert each.high[0] == max(first[name].high[0], second[name].high[0])
        assert each.value[0] == first[name].value[0]
    assert found["precision"].low[0] < first["precision"].low[0] - 0.1


def test_items_that_are_groups_have_wilson_s_interval() -> None:
    from scipy import stats

    n, k = 80, 60
    found = grouped_share(np.arange(n) < k, np.ones(n), np.zeros(n, np.int64), np.arange(n), 1)
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert found.low[0] == pytest.approx(expected.low, abs=0.006)  # t with 79 degrees of freedom in place of z
    assert found.high[0] == pytest.approx(expected.high, abs=0.006)


def test_intervals_cover_the_truth_although_groups_differ() -> None:
    """400 experiments of 15 groups of 12 alike items: the share's interval covers the truth about 19 times in 20, that of items does not."""
    rng = np.random.default_rng(4)
    experiments, groups, size, truth = 400, 15, 12, 0.7
    of_group = rng.beta(truth * 4, (1 - truth) * 4, (experiments, groups))
    hits = (rng.random((experiments, groups, size)) < of_group[..., None]).ravel()
    concept = np.repeat(np.arange(experiments), groups * size)
    group = np.tile(np.repeat(np.arange(groups), size), experiments)

    def covered(group: np.ndarray) -> float:
        found = grouped_share(hits, np.ones(len(hits)), concept, group, experiments)
        return float(((found.low <= truth) & (truth <= found.high)).mean())

    assert 0.91 < covered(group) < 0.985
    assert covered(np.tile(np.arange(groups * size), experiments)) < 0.85


def test_a_mean_over_groups_and_its_bootstrap() -> None:
    rng = np.random.default_rng(5)
    concept, group = np.repeat([0, 1], 200), np.tile(np.repeat(np.arange(20), 10), 2)
    values = rng.normal(size=400) + 0.5 * concept
    found = grouped_mean(values, concept, group, 3, rng)
    for each in (0, 1):
        means = [values[(concept == each) & (group == g)].mean() for g in range(20)]
        assert found.value[each] == pytest.approx(np.mean(means))
        assert (found.high[each] - found.low[each]) / 2 == pytest.approx(1.96 * np.std(means) / 20**0.5, rel=0.25)
    assert np.isnan(found.value[2])
    assert np.isnan(grouped_mean(values[:5], concept[:5], np.arange(5), 1, rng).low[0])  # five groups: no interval
