"""Windows against spans: planted spans reach the ceiling, random scores stay at the floor, and every number by a plain second way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sae_genomics.concepts import spans_found
from sae_genomics.concepts.spans_found import Stretches


def stretches(
    rng: np.random.Generator,
    n: int,
    window: int,
    signal: float,
    most_spans: int = 3,
    length: tuple[int, int] = (40, 160),
) -> Stretches:
    """Items with spans of 8 to 16 tokens that lie apart; the score is noise and `signal` within spans."""
    lengths = rng.integers(*length, n)
    ptr = np.concatenate([[0], np.cumsum(lengths)])
    mask = np.zeros(ptr[-1], bool)
    for item in range(n):
        part = lengths[item] // most_spans
        for number in range(rng.integers(1, most_spans + 1)):
            span = int(rng.integers(8, min(16, part - 2)))
            start = ptr[item] + number * part + int(rng.integers(1, part - span))
            mask[start : start + span] = True
    score = rng.normal(size=len(mask)) + signal * mask
    n_spans = np.bincount(spans_found.runs(mask, ptr)[0], minlength=n)
    return Stretches(ptr, score, mask, np.full(n, window), n_spans)


def plain_best(values: np.ndarray, width: int, wanted: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for _ in range(wanted):
        options = [
            (values[start : start + width].mean(), -start)
            for start in range(len(values) - width + 1)
            if all(start >= stop or start + width <= begin for begin, stop in found)
        ]
        if not options:
            break
        start = -max(options)[1]
        found.append((start, start + width))
    return found


def test_windows_and_iou_are_those_of_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    at = stretches(rng, 25, 11, 1.0)
    found = spans_found.best_windows(at.score, at)
    iou, hits, precision = spans_found.ious(found, at), spans_found.pointing_hits(at), spans_found.average_precision(at)
    for item, (first, last) in enumerate(itertools.pairwise(at.ptr)):
        score, mask = at.score[first:last], at.mask[first:last]
        windows = plain_best(score, 11, int(at.wanted[item]))
        own = found.stretch == item
        assert sorted(zip(found.start[own] - first, found.stop[own] - first, strict=True)) == sorted(windows)
        covered = np.zeros(len(mask), bool)
        for start, stop in windows:
            covered[start:stop] = True
        assert iou[item] == pytest.approx((covered & mask).sum() / (covered | mask).sum())
        assert hits[item] == mask[score.argmax()]
        assert precision[item] == pytest.approx(average_precision_score(mask, score))


def test_planted_spans_reach_the_ceiling_and_random_scores_the_floor() -> None:
    rng = np.random.default_rng(1)
    planted, noise = stretches(rng, 200, 12, 6.0), stretches(rng, 200, 12, 0.0)
    ceiling = spans_found.ceilings(planted).mean()
    assert 0.6 < ceiling < 1  # windows of 12 cannot be right for spans of 8 to 15
    assert spans_found.ious(spans_found.best_windows(planted.score, planted), planted).mean() > 0.93 * ceiling
    of_noise = spans_found.ious(spans_found.best_windows(noise.score, noise), noise).mean()
    floor = spans_found.random_ious(noise, 99, rng).mean(axis=0)
    assert floor.min() - 0.02 < of_noise < floor.max() + 0.02
    assert spans_found.pointing_hits(planted).mean() > 0.9
    assert abs(spans_found.average_precision(noise).mean() - spans_found.prevalence(noise).mean()) < 0.08


def test_the_ceiling_is_one_where_the_window_fits_and_known_where_it_does_not() -> None:
    mask = np.zeros(60, bool)
    mask[20:30] = True
    ptr = np.array([0, 60])

    def ceiling(window: int) -> float:
        return float(spans_found.ceilings(Stretches(ptr, np.zeros(60), mask, np.array([window]), np.array([1])))[0])

    assert ceiling(10) == 1
    assert ceiling(5) == pytest.approx(5 / 10)
    assert ceiling(20) == pytest.approx(10 / 20)


@pytest.mark.parametrize("window", [7, 12, 25])
def test_no_choice_of_windows_beats_the_ceiling_on_one_span(window: int) -> None:
    at = stretches(np.random.default_rng(2), 60, window, 0.0, most_spans=1)
    best = np.array([
        max(
            (np.isin(np.arange(last - first), np.arange(start, start + window)) & at.mask[first:last]).sum()
            / (np.isin(np.arange(last - first), np.arange(start, start + window)) | at.mask[first:last]).sum()
            for start in range(last - first - window + 1)
        )
        for first, last in itertools.pairwise(at.ptr)
    ])  # fmt: skip
    assert spans_found.ceilings(at) == pytest.approx(best)


def test_random_windows_do_not_overlap_and_are_anywhere() -> None:
    """One span of 10 in 100 tokens, two windows of 10 wanted: the expected overlap is what enumeration gives."""
    mask = np.zeros(100, bool)
    mask[45:55] = True
    at = Stretches(np.array([0, 100]), np.zeros(100), mask, np.array([10]), np.array([1]))
    expected = np.mean([
        (inter := max(0, min(start + 10, 55) - max(start, 45))) / (20 - inter) for start in range(91)
    ])  # fmt: skip
    drawn = spans_found.random_ious(at, 20_000, np.random.default_rng(3))
    assert drawn.mean() == pytest.approx(expected, abs=0.005)


def test_an_item_shorter_than_the_window_and_one_without_spans() -> None:
    mask = np.array([True] * 4 + [False] * 20)
    at = Stretches(np.array([0, 4, 24]), np.arange(24.0), mask, np.array([9, 9]), np.array([1, 0]))
    assert spans_found.ious(spans_found.best_windows(at.score, at), at)[0] == 1
    assert np.isnan(spans_found.ious(spans_found.best_windows(at.score, at), at)[1])
    assert np.isnan(spans_found.average_precision(at)[1])
