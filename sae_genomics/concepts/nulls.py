"""What a concept's AUROC is compared with: the same fit and the same score for concepts that are none.

- shuffled: labels change hands, but never leave what keeps them together. Where every group is all positive or all negative, whole groups
  swap; else items swap within their group. For spans, residues swap within their item; for gene sets, genes of one tenth of expression.
- random: for items, random items, as many on either side of the split; for spans, all spans of an item moved along it by one random step,
  round the end; for gene sets, random genes of the same tenths of expression, with random others.

Both sides of the split are drawn anew. The penalty is the concept's. Draws stop at the h-th that reaches the concept's AUROC
(`concepts.stop_after`): with l draws made by then, p = (1 + h) / (1 + l), which is never below Besag and Clifford's h / l
(Biometrika 1991, 78:301). With all n draws made, p = (1 + exceeding) / (1 + n).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.concepts.concept import Bools, Ints
from sae_genomics.concepts.scores import aurocs
from sae_genomics.concepts.solver import balanced, fit_logistic

FIRST_DRAWS = 19
_ROUGH = 1e-2
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Draws:
    """Random concepts. row: [n], of the coordinates they are fitted in. heldout: bool [n]. positive, used: bool [n, draws];
    used None: every row counts in every draw."""

    row: Ints
    heldout: Bools
    positive: Bools
    used: Bools | None = None


Maker = Callable[[int, np.random.Generator], Draws]


@dataclass(frozen=True, eq=False)
class Null:
    """areas: the draws' AUROCs, as far as they were made. p: of the concept; NaN where it has no AUROC, or no draw has one.

    weights: float32 [components, fitted], the directions of all draws that were fitted and have an AUROC. Those after the stop are among them:
    where the draws end is decided by AUROCs, and a sample that ends with a good one would be no fair sample of directions.
    """

    areas: Floats
    p: float
    weights: npt.NDArray[np.float32]


def draw_null(
    x: npt.NDArray[np.float32], make: Maker, observed: float, strength: float, n_draws: int, stop_after: int,
    rng: np.random.Generator,
) -> Null:  # fmt: skip
    """Fit and score draws until the answer is clear. x: coordinates of all rows. make: n, generator -> n draws."""
    areas, weights = np.zeros(0), [np.zeros((x.shape[1], 0), np.float32)]
    while len(areas) < n_draws and np.isfinite(observed):
        n = min(FIRST_DRAWS if not len(areas) else -(-n_draws // 2), n_draws - len(areas))
        fitted, directions = fit_draws(x, make(n, rng), strength)
        if not np.isfinite(fitted).any():
            break
        weights.append(directions[:, np.isfinite(fitted)])
        areas = np.concatenate([areas, fitted])
        reached = np.flatnonzero(np.cumsum(areas >= observed) >= stop_after)
        if len(reached):
            areas = areas[: reached[0] + 1]
            break
    made = areas[np.isfinite(areas)]
    p = (1 + int((made >= observed).sum())) / (1 + len(made)) if len(made) and np.isfinite(observed) else np.nan
    return Null(made, p, np.concatenate(weights, axis=1))


def fit_draws(x: npt.NDArray[np.float32], draws: Draws, strength: float) -> tuple[Floats, npt.NDArray[np.float32]]:
    """The held-out AUROC of each draw, float64 [draws], and its weights, fitted on the other rows: float32 [components, draws]."""
    train = ~draws.heldout
    y = draws.positive[train].astype(np.float32)
    used = None if draws.used is None else draws.used[train].astype(np.float32)
    fit = fit_logistic(x[draws.row[train]], y, balanced(y, used), np.full(y.shape[1], strength), _ROUGH)
    weights = fit.weights.astype(np.float32, copy=False)
    scores = x[draws.row[draws.heldout]] @ weights
    if draws.used is None:
        return aurocs(scores, draws.positive[draws.heldout]), weights
    areas = np.full(y.shape[1], np.nan)
    for number, (score, positive, counts) in enumerate(
        zip(scores.T, draws.positive[draws.heldout].T, draws.used[draws.heldout].T, strict=True)
    ):
        areas[number] = aurocs(score[counts, None], positive[counts, None])[0]
    return areas, weights


def shuffled_within(values: Bools, stratum: Ints, n: int, rng: np.random.Generator) -> Bools:
    """The values of each stratum in random order: bool [rows, n]."""
    order = np.argsort(stratum, kind="stable")
    keys = stratum[order][:, None] + rng.random((len(values), n))
    drawn = np.empty((len(values), n), bool)
    drawn[order] = values[order[np.argsort(keys, axis=0, kind="stable")]]
    return drawn


def shuffled_items(positive: Bools, heldout: Bools, group: Ints) -> Callable[[int, np.random.Generator], Bools]:
    """Maker of shuffled labels of items: whole groups where each is of one label, else within groups; never across the split."""
    codes, number = np.unique(group * 2 + heldout, return_inverse=True)
    share = np.bincount(number, positive) / np.bincount(number)
    if ((share == 0) | (share == 1)).all():
        side = codes % 2
        return lambda n, rng: shuffled_within(share > 0.5, side, n, rng)[number]
    return lambda n, rng: shuffled_within(positive, number, n, rng)


def random_items(positive: Bools, heldout: Bools) -> Callable[[int, np.random.Generator], Bools]:
    """Maker of random sets of items, of the concept's size on each side of the split."""
    side = heldout.astype(np.int64)
    return lambda n, rng: shuffled_within(positive, side, n, rng)


def random_genes(
    unit: Ints, wanted: tuple[Ints, Ints], stratum: Ints, n: int, rng: np.random.Generator
) -> tuple[Bools, Bools]:
    """Random gene sets and their others, for rows of known units: positive, used, bool [rows, n] each.

    unit: [rows]. wanted: members and others of each stratum. stratum: [units], bin and side of the split.
    """
    genes, place = np.unique(unit, return_inverse=True)
    of = stratum[genes]
    order = np.argsort(of, kind="stable")
    keys = of[order][:, None] + rng.random((len(genes), n))
    ranked = order[np.argsort(keys, axis=0, kind="stable")]
    number = np.arange(len(genes)) - np.searchsorted(of[order], of[order])
    is_member, is_used = (
        number < wanted[0][of[order]],
        number < (wanted[0] + wanted[1])[of[order]],
    )
    member, used = np.zeros((len(genes), n), bool), np.zeros((len(genes), n), bool)
    np.put_along_axis(member, ranked, np.repeat(is_member[:, None], n, axis=1), axis=0)
    np.put_along_axis(used, ranked, np.repeat(is_used[:, None], n, axis=1), axis=0)
    return member[place], used[place]
