"""Thresholds on items' scores, and how good they are on other items: plain arrays, all concepts at once.

Three rules: the threshold of the largest F1; the largest threshold that finds at least 0.9 of the items with the concept; the smallest
one that takes at most 0.05 of the others for it. An item has the concept when its score is at least the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sae_genomics.concepts.resampling import Interval, grouped_share

LEAST_RECALL, MOST_FALSE = 0.9, 0.05
RULES = ("f1_max", "precision_at_recall_0.9", "fpr_0.05")
MEASURES = ("precision", "recall", "f1", "false_positive_rate")
VALIDATION, TEST, UNUSED = 0, 1, -1
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """Items as concepts score them. score: float [items, concepts]. positive, counted: bool [items, concepts]; what is not counted is
    neither with nor without the concept. group: int64 [items]."""

    score: npt.NDArray[np.floating]
    positive: Bool
    counted: Bool
    group: npt.NDArray[np.int64]

    def where(self, part: Bool) -> Scored:
        """The same, of which only `part` counts: bool [items, concepts]."""
        return Scored(self.score, self.positive, self.counted & part, self.group)


def halves(scored: Scored, random: np.random.Generator) -> npt.NDArray[np.int8]:
    """VALIDATION or TEST for every item and concept: int8 [items, concepts].

    Whole groups go to a half, so that each half has its share of the items with the concept and of those without: groups in a random
    order, those with the concept first, then by turns.
    """
    n_groups = int(scored.group.max(initial=-1)) + 1
    n_concepts = scored.score.shape[1]
    positive = np.zeros((n_groups, n_concepts))
    np.add.at(positive, scored.group, scored.positive & scored.counted)
    counted = np.zeros((n_groups, n_concepts))
    np.add.at(counted, scored.group, scored.counted)
    tie = random.random(n_groups)[:, None]  # of all concepts alike
    key = np.where(counted > 0, np.where(positive > 0, -1.0 - positive, 0.0), 2.0)
    order = np.lexsort((np.broadcast_to(tie, key.shape), key), axis=0)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(n_groups)[:, None], axis=0)
    # 0 1 1 0 0 1 1 0: the half that gets the larger one of two neighbours gets the smaller one of the next two
    half = np.where(np.isin(rank % 4, (1, 2)), TEST, VALIDATION).astype(np.int8)
    return half[scored.group]


def choose(scored: Scored) -> Float64:
    """float64 [rules, concepts]; NaN where no item counts that has the concept, or none that has it not."""
    used = scored.counted & np.isfinite(scored.score)
    score = np.where(used, scored.score, -np.inf).astype(np.float64)
    order = np.argsort(-score, axis=0, kind="stable")
    score = np.take_along_axis(score, order, axis=0)
    with_it = np.take_along_axis(scored.positive & used, order, axis=0)
    taken = np.take_along_axis(used, order, axis=0)
    below = np.vstack([score[1:], np.full((1, score.shape[1]), -np.inf)])
    ends = taken & (score > below)  # equal scores are on one side
    true, total = np.cumsum(with_it, axis=0), np.cumsum(taken, axis=0)
    n_with, n_all = true[-1], total[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, false = true / n_with, (total - true) / (n_all - n_with)
        f1 = 2 * true / (total + n_with)
    between = np.where(np.isfinite(below), (score + below) / 2, score)
    columns = np.arange(score.shape[1])
    best = np.where(ends, f1, -1.0).argmax(axis=0)
    first = (ends & (recall >= LEAST_RECALL)).argmax(axis=0)
    few = ends & (false <= MOST_FALSE)
    last = len(score) - 1 - few[::-1].argmax(axis=0)
    above_all = np.nextafter(score[0], np.inf)
    chosen = np.stack(
        [between[best, columns], between[first, columns], np.where(few.any(axis=0), between[last, columns], above_all)]
    )
    known = (n_with > 0) & (n_all > n_with)
    return np.where(known, chosen, np.nan)


def measure_by_both(scored: Scored, threshold: Float64, other_group: npt.NDArray[np.int64]) -> dict[str, Interval]:
    """`measure`, with the wider of two intervals: over the groups of `scored`, and over others. other_group: int64 [items]."""
    one, other = measure(scored, threshold), measure(replace(scored, group=other_group), threshold)
    return {
        name: Interval(
            each.value, np.fmin(each.low, other[name].low), np.fmax(each.high, other[name].high), each.n_groups
        )
        for name, each in one.items()
    }


def measure(scored: Scored, threshold: Float64) -> dict[str, Interval]:
    """`MEASURES` at a threshold of each concept, float64 [concepts], on the items that count: name -> Interval over concepts."""
    used = scored.counted & np.isfinite(scored.score) & np.isfinite(threshold)
    above = used & (scored.score >= threshold)
    with_it = scored.positive & used
    item, concept = np.nonzero(used)
    group = scored.group[item]
    yes, is_with = above[item, concept].astype(np.float64), with_it[item, concept].astype(np.float64)
    true, n = yes * is_with, threshold.shape[0]
    return {
        "precision": grouped_share(true, yes, concept, group, n),
        "recall": grouped_share(true, is_with, concept, group, n),
        "f1": grouped_share(2 * true, yes + is_with, concept, group, n),
        "false_positive_rate": grouped_share(yes - true, 1 - is_with, concept, group, n),
    }
