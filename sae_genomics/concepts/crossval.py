"""The strength of the penalty, and how stable a direction is: cross-validation over whole groups, within the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.concepts.concept import Bools, Ints
from sae_genomics.concepts.scores import aurocs
from sae_genomics.concepts.solver import balanced, fit_logistic

Array = npt.NDArray[np.floating[Any]]
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # L2 penalty on the mean loss
MIDDLE = 0.1  # where nothing can be chosen
_ROUGH = 1e-3


def grouped_folds(positive: Bools, group: Ints, n_folds: int, rng: np.random.Generator) -> Ints:
    """A fold of each row, whole groups together: int64 [rows]. Groups with positives are dealt out first, the largest first.

    There are never more folds than groups with positives or groups with negatives.
    """
    codes = np.unique(group, return_inverse=True)[1]
    n_groups = int(codes.max(initial=-1)) + 1
    inside = np.bincount(codes, positive, minlength=n_groups)
    outside = np.bincount(codes, ~positive, minlength=n_groups)
    folds = min(n_folds, int((inside > 0).sum()), int((outside > 0).sum()))
    if folds < 2:
        return np.zeros(len(positive), np.int64)
    shuffled = rng.permutation(n_groups)
    order = shuffled[np.lexsort((-outside[shuffled], -inside[shuffled]))]
    fold = np.empty(n_groups, np.int64)
    carries = inside[order] > 0
    fold[order[carries]] = np.arange(carries.sum()) % folds
    fold[order[~carries]] = np.arange((~carries).sum()) % folds
    return fold[codes]


@dataclass(frozen=True, eq=False)
class Chosen:
    """strength: the penalty. stability: mean cosine of two folds' directions; NaN without folds. folds: how many there were."""

    strength: float
    stability: float
    folds: int


def choose_strength(x: Array, positive: Bools, fold: Ints, strengths: tuple[float, ...] = STRENGTHS) -> Chosen:
    """The penalty of the best mean AUROC on the folds left out; of equal ones the largest.

    All folds and penalties are one batch of problems.
    """
    n_folds = int(fold.max(initial=0)) + 1
    if n_folds < 2:
        return Chosen(MIDDLE, np.nan, 0)
    left_out = np.repeat(np.arange(n_folds), len(strengths))
    penalty = np.tile(np.asarray(strengths), n_folds)
    y = np.broadcast_to(positive[:, None], (len(x), len(left_out))).astype(x.dtype)
    used = (fold[:, None] != left_out[None, :]).astype(x.dtype)
    fit = fit_logistic(x, y, balanced(y, used), penalty, _ROUGH)
    areas = np.full((n_folds, len(strengths)), np.nan)
    for number in range(n_folds):
        rows, columns = fold == number, left_out == number
        scores = x[rows] @ fit.weights[:, columns]
        areas[number] = aurocs(scores, np.repeat(positive[rows][:, None], len(strengths), axis=1))
    scored = np.isfinite(areas).any(axis=1)
    if not scored.any():
        return Chosen(MIDDLE, np.nan, n_folds)
    mean = np.nanmean(areas[scored], axis=0)
    best = int(np.flatnonzero(mean >= mean.max() - 1e-9)[-1])
    return Chosen(strengths[best], mean_cosine(fit.weights[:, best :: len(strengths)]), n_folds)


def mean_cosine(directions: Array) -> float:
    """Mean cosine between any two columns."""
    lengths = np.linalg.norm(directions, axis=0)
    unit = directions / np.where(lengths > 0, lengths, 1)
    n = unit.shape[1]
    if n < 2:
        return float("nan")
    together = unit.T @ unit
    return float((together.sum() - np.trace(together)) / (n * (n - 1)))
