"""The audit of confounds: what else tells a concept's positives from its negatives, and what is left of its AUROC among rows alike in it.

Of a property that is a number, the AUROC of the number itself, on the held-out rows. Of a category, the AUROC of the share of
positives among the other half of the category's rows (halves are drawn; a category that stands in one half alone gets the overall share),
so that no row helps to predict itself.

Matched: held-out rows are cut into strata: tenths of a number, or the categories. Only pairs of a positive and a negative of one stratum are
compared. With positives from four species and negatives from one, no such pair is left, and there is no matched AUROC to report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.concepts.concept import Bools, Ints
from sae_genomics.concepts.scores import GroupDraws, auroc, auroc_bounds, weighted_aurocs

N_STRATA = 10
MOST_DRAWS = 100  # of groups, for an interval: there are many properties
MODELS = ("composition", "position")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Property:
    """One property of rows: numbers [rows], or categories [rows] as whole numbers with -1 for unknown."""

    name: str
    values: npt.NDArray[Any]
    is_category: bool

    @staticmethod
    def of(name: str, values: npt.NDArray[Any]) -> Property:
        """From a column: text becomes a category."""
        if values.dtype == object:
            return Property(name, pd.factorize(values)[0].astype(np.int64), True)
        return Property(name, values.astype(np.float64), False)

    def known(self) -> Bools:
        """Rows that have a value."""
        has: Bools = self.values >= 0 if self.is_category else np.isfinite(self.values)
        return has

    def strata(self, rows: Bools) -> Ints:
        """Stratum of each of the chosen rows: int64."""
        values = self.values[rows]
        if self.is_category:
            return values.astype(np.int64)
        edges = np.unique(np.quantile(values, np.arange(1, N_STRATA) / N_STRATA)) if len(values) else np.zeros(0)
        return np.searchsorted(edges, values, side="left").astype(np.int64)

    def auroc(self, positive: Bools, rng: np.random.Generator) -> float:
        """How well it tells positives from negatives; rows without a value are left out."""
        known = self.known()
        values, told = self.values[known], positive[known]
        return auroc(_share_elsewhere(values.astype(np.int64), told, rng) if self.is_category else values, told)


def _share_elsewhere(category: Ints, positive: Bools, rng: np.random.Generator) -> Floats:
    if not len(category):
        return np.zeros(0)
    half = rng.permutation(len(category)) % 2
    n = int(category.max()) + 1
    rows = np.bincount(category * 2 + half, minlength=2 * n).reshape(n, 2)
    inside = np.bincount(category * 2 + half, positive, minlength=2 * n).reshape(n, 2)
    share = np.where(rows > 0, inside / np.maximum(rows, 1), positive.mean())
    elsewhere: Floats = share[category, 1 - half]
    return elsewhere


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """A concept's held-out rows: the vector's score, what they are, their groups, and draws of groups."""

    scores: Floats
    positive: Bools
    group: Ints
    draws: GroupDraws


def audit(concept: str, rows: ScoredRows, properties: list[Property], seed: int) -> list[dict[str, object]]:
    """Rows of concept_confounds.parquet. properties: of the same held-out rows."""
    found = [_one(concept, rows, each, np.random.default_rng([seed, 11])) for each in properties]
    measured = [each for each in found if each["confound"] not in MODELS and np.isfinite(_far(each))]
    strongest = max(measured, key=_far, default=None)
    for each in found:
        each["strongest"] = each is strongest
    return found


def _far(row: Mapping[str, object]) -> float:
    return abs(float(row["auroc"]) - 0.5)  # type: ignore[arg-type]


def _one(concept: str, rows: ScoredRows, each: Property, rng: np.random.Generator) -> dict[str, object]:
    known = each.known()
    positive, stratum = rows.positive[known], each.strata(known)
    n_in = np.bincount(stratum, positive, minlength=1)
    n_out = np.bincount(stratum, ~positive, minlength=1)
    both = (n_in > 0) & (n_out > 0)
    weights = np.column_stack([np.ones(int(known.sum())), rows.draws.weights[known, :MOST_DRAWS]])
    areas = weighted_aurocs(rows.scores[known], positive, weights, stratum)
    matched = both[stratum] if len(stratum) else np.zeros(0, bool)
    low, high = auroc_bounds(float(areas[0]), areas[1:], positive[matched], rows.group[known][matched])
    return {
        "concept": concept,
        "confound": each.name,
        "type": "category" if each.is_category else "number",
        "auroc": each.auroc(rows.positive, rng),
        "n_strata": int(both.sum()),
        "share_matched": float(n_in[both].sum() / max(int(rows.positive.sum()), 1)),
        "auroc_matched": float(areas[0]),
        "auroc_matched_low": low,
        "auroc_matched_high": high,
    }
