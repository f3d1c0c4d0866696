"""Counts to scores: precision, recall and F1 at the threshold that the choosing half prefers, measured on the scoring half; and p.

Per residue, over the items that can tell:

    precision = active residues inside the concept / active residues        recall = the same / residues of the concept

Per span: precision = runs of active residues that touch the concept / runs, recall = spans with an active residue / spans. The two
are never mixed. F1 = 2 precision recall / (precision + recall). The threshold is the one with the largest F1 per residue on the choosing
half, the lowest of equals.

Test. One observation is one item of the scoring half that carries the concept and where the unit is active: is the unit strongest inside the
concept? (A tie of inside and outside is a no.) With groups, one item per group is drawn, because items of one group are not
independent. Null: the strongest residue of an item is as likely to be any of its residues. Then the number of yes among n observations is a sum of
independent trials with probabilities p_i, the shares of residues inside. Its tail is at most that of a binomial with their mean when the number is
n, or at least n mean + 1 (Hoeffding 1956, Ann. Math. Stat. 27:713), and p = 1 otherwise: p is conservative. q is
Benjamini-Hochberg over all pairs of the kind's units and concepts, those with p = 1 among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.associations.spans.counts import ConceptCounts, at_least
from sae_genomics.associations.spans.halves import CHOOSE, SCORE
from sae_genomics.associations.spans.segments import Concepts, SpanBlock

Floats = npt.NDArray[np.float64]
_UNITS_AT_ONCE = 256


class ConceptSizes:
    """What there is of every concept in either half: arrays [concepts, 2]. residues, items, groups; n_spans; all_residues of items that can tell.

    all_residues: int64 [4], by group in either half, by item in either half.
    """

    def __init__(self, concepts: Concepts):
        self.concepts = concepts
        n = len(concepts)
        self.residues, self.n_spans = np.zeros(2 * n, np.int64), np.zeros(2 * n, np.int64)
        self.all_residues = np.zeros(4, np.int64)
        scoring = concepts.halves.of(concepts.merged.item, concepts.merged.concept)
        self.items = _distinct(concepts.merged.item, concepts.merged.concept, scoring, n)
        group = concepts.group if concepts.group is not None else np.arange(len(concepts.tells))
        self.groups = _distinct(group[concepts.merged.item], concepts.merged.concept, scoring, n)

    def add(self, block: SpanBlock) -> None:
        """Count a block's residues and spans."""
        length = block.merged.stop - block.merged.start
        self.residues += np.bincount(block.merged.column, weights=length, minlength=len(self.residues)).astype(np.int64)
        self.n_spans += np.bincount(block.spans.column, minlength=len(self.n_spans))
        for way in range(2):
            self.all_residues[2 * way : 2 * way + 2] += np.bincount(block.half[:, way], minlength=2)

    def of(self, half: int, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Int64 [concepts] of one half, of `residues` or `n_spans`."""
        return sizes[half::2]

    def testable(self) -> npt.NDArray[np.bool_]:
        """Concepts with residues in both halves: bool [concepts]."""
        return (self.of(CHOOSE, self.residues) > 0) & (self.of(SCORE, self.residues) > 0)


def _distinct(
    member: npt.NDArray[np.int64], concept: npt.NDArray[np.int64], half: npt.NDArray[np.int8], n: int
) -> npt.NDArray[np.int64]:
    """How many members carry each concept in either half: int64 [concepts, 2]."""
    pairs = np.unique((member * max(n, 1) + concept) * 2 + half)
    return np.bincount(pairs % (2 * max(n, 1)), minlength=2 * n).reshape(n, 2)


@dataclass(frozen=True)
class ConceptScores:
    """Every unit against every concept at the chosen threshold: arrays [units, concepts].

    All but level, threshold and chosen are of the scoring half; NaN where a denominator is 0. chosen: F1 per residue on the
    choosing half; -1 where nothing can be chosen. tp: active residues inside; active: active residues. p, q: NaN where no test was made.
    """

    level: npt.NDArray[np.int64]
    threshold: Floats
    chosen: Floats
    tp: npt.NDArray[np.int64]
    active: npt.NDArray[np.int64]
    precision_residue: Floats
    recall_residue: Floats
    f1_residue: Floats
    precision_span: Floats
    recall_span: Floats
    f1_span: Floats
    odds_ratio: Floats
    p: Floats
    q: Floats


def score(counts: ConceptCounts, sizes: ConceptSizes, own_alone: bool = False) -> ConceptScores:
    """Choose a threshold for every pair of unit and concept, and score it.

    own_alone: unit i is made for concept i; other pairs are neither chosen nor tested.
    """
    testable = np.broadcast_to(sizes.testable(), (counts.n_units, len(counts.concepts))).copy()
    if own_alone:
        testable &= np.eye(counts.n_units, dtype=bool)
    p = np.where(testable, _p_values(counts), np.nan)
    q = benjamini_hochberg(p.ravel()).reshape(p.shape)
    thresholds = counts.thresholds()
    parts = []
    for first in range(0, max(counts.n_units, 1), _UNITS_AT_ONCE):
        units = slice(first, min(first + _UNITS_AT_ONCE, counts.n_units))
        parts.append(_some_units(counts, sizes, units, testable[units], thresholds[units]))
    joined: list[npt.NDArray[Any]] = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    arrays: list[npt.NDArray[Any]] = [*joined, p, q]
    return ConceptScores(*arrays)


def _some_units(
    counts: ConceptCounts, sizes: ConceptSizes, units: slice, testable: npt.NDArray[np.bool_], thresholds: Floats
) -> tuple[npt.NDArray[Any], ...]:
    n = len(counts.concepts)
    way = np.where(counts.concepts.halves.single, 2, 0)  # which of the four columns of totals
    inside, active = at_least(counts.levels.residues[units]), at_least(counts.levels.active[units])
    _, _, f1 = _f1(inside[:, CHOOSE::2], active[:, way + CHOOSE], sizes.of(CHOOSE, sizes.residues)[None, :, None])
    f1 = np.where(testable[:, :, None], np.nan_to_num(f1), -1.0)
    level = f1.argmax(axis=2)
    unit, concept = np.indices(level.shape)

    def at(values: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        return values[unit, concept, level].astype(np.int64)

    tp, total = at(inside[:, SCORE::2]), at(active[:, way + SCORE])
    n_residues, n_spans = sizes.of(SCORE, sizes.residues), sizes.of(SCORE, sizes.n_spans)
    per_residue = _f1(tp, total, n_residues[None, :])
    hit, touching = at(at_least(counts.levels.spans[units])[:, SCORE::2]), at(counts.levels.runs[units][:, SCORE::2])
    runs = at(counts.levels.all_runs[units][:, way + SCORE])
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = touching / runs, hit / n_spans[None, :]
        f1_span = np.where(precision + recall > 0, 2 * precision * recall / (precision + recall), 0.0)
    f1_span[np.isnan(precision) | np.isnan(recall)] = np.nan
    neither = sizes.all_residues[way + SCORE] - total - n_residues + tp
    odds = (tp + 0.5) * (neither + 0.5) / ((total - tp + 0.5) * (n_residues - tp + 0.5))
    chosen = f1.max(axis=2) if n else np.zeros(level.shape)
    return level, thresholds[unit, level], chosen, tp, total, *per_residue, precision, recall, f1_span, odds


def _f1(
    inside: npt.NDArray[np.int64], active: npt.NDArray[np.int64], positives: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 from whole numbers; NaN over nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return inside / active, inside / positives, np.where(positives > 0, 2 * inside / (active + positives), np.nan)


def _p_values(counts: ConceptCounts) -> Floats:
    """The test of the module's text: float64 [units, concepts]; 1 where there is no observation."""
    n, yes = counts.tests.observed.astype(np.float64), counts.tests.inside.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(n > 0, counts.tests.share / n, 1.0)
    bounded = (n > 0) & (yes > 0) & ((yes == n) | (yes >= counts.tests.share + 1))
    p = np.ones(n.shape)
    p[bounded] = stats.binom.sf(yes[bounded] - 1, n[bounded], np.minimum(mean[bounded], 1.0))
    return p


def best_units(scores: ConceptScores) -> npt.NDArray[np.int64]:
    """Each concept's unit with the largest F1 per residue on the choosing half; -1 where none overlaps it: int64 [concepts]."""
    if not scores.chosen.size:
        return np.full(scores.chosen.shape[1], -1, dtype=np.int64)
    best = scores.chosen.argmax(axis=0)
    return np.where(scores.chosen.max(axis=0) > 0, best, -1)


def found(scores: ConceptScores, least_f1: float, fdr: float) -> npt.NDArray[np.bool_]:
    """Pairs that meet the criterion on the scoring half: bool [units, concepts]."""
    with np.errstate(invalid="ignore"):
        return (scores.f1_residue >= least_f1) & (scores.q < fdr) & (scores.chosen > 0)
