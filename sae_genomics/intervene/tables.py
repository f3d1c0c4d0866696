"""From what changed to numbers: per item first, then over items or groups, each beside what random directions of equal norm change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats

from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.causal.measure import Measured, norms, outcomes_of, targets_in
from sae_genomics.causal.nulls import p_values
from sae_genomics.causal.over_items import FEWEST, mean_over, over_groups, p_above
from sae_genomics.causal.results import Effect, effect_tables
from sae_genomics.causal.specificity import LEAST, moments
from sae_genomics.data.units import Units
from sae_genomics.intervene.passes import Passed, Work

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
COLUMNS = (
    "outcome", "masked", "unit_id", "unit_name", "own", "n_items", "n_groups", "change", "change_low", "change_high", "random", "p_direction", "p_items", "p_value", "q_value",
)  # fmt: skip


@dataclass(frozen=True)
class Own:
    """The edited features' own units, bool [units], and the strata that matched ones share with them, int64 [units]; of training items."""

    units: Bools
    bins: Ints


def size_rows(work: Work, passed: Passed) -> list[dict[str, Any]]:
    """How much each outcome changes, in root mean square over an item's tokens (KL: mean); embedding: length of its change."""
    found, item, n = passed.found, passed.item, passed.n_items
    n_counted = np.bincount(item[passed.counts], minlength=n)
    is_value = work.model.outcome == "value"
    rows = []
    for name, change in (("token", found.token), ("from_item", found.from_item), ("embedding", found.embedding)):
        if change is None:
            continue
        if name == "embedding":
            of_sequence = item[passed.sample.tokens.item_ptr[:-1]]
            size = _per_item(change, of_sequence, n) / np.bincount(of_sequence, minlength=n)
        else:
            counted = change[:, passed.counts].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                size = _per_item(counted**2 if is_value else counted, item[passed.counts], n) / n_counted
            size = np.sqrt(size) if is_value else size
        mean = mean_over(size[0], passed.group)
        each = over_groups(size[1:].T, passed.group)
        each = each[~np.isnan(each).any(axis=1)]
        drawn = each.mean(axis=0) if len(each) else np.full(len(size) - 1, np.nan)
        rows.append({
            "outcome": name, "masked": work.request.masked, "n_items": mean.n_items, "n_groups": mean.n_groups,
            "change": mean.value, "change_low": mean.low, "change_high": mean.high,
            "random": float(drawn.mean()), "random_high": float(drawn.max()), "p_value": p_above(mean.value, drawn),
        })  # fmt: skip
    return rows


def _per_item(values: npt.NDArray[np.floating], item: Ints, n: int) -> Floats:
    """Sums over each item's columns: [edits, items]. values: [edits, columns]. item: int64 [columns]."""
    member = sparse.csr_matrix((np.ones(len(item)), (np.arange(len(item)), item)), shape=(len(item), n))
    return np.asarray(values.astype(np.float64) @ member)


def norm_of(passed: Passed) -> dict[str, Any]:
    """The edit's norm in an item: mean with interval over items or groups; and tokens edited."""
    item = passed.item[passed.sample.tokens.item_ptr[:-1]]
    norm = np.sqrt(_per_item(passed.found.norm[:1] ** 2, item, passed.n_items))[0]
    mean = mean_over(norm, passed.group)
    return {
        "norm": mean.value, "norm_low": mean.low, "norm_high": mean.high, "n_items": passed.n_items,
        "n_groups": mean.n_groups, "n_edited": int(passed.found.n_edited[0].sum()), "n_tokens": int((~passed.sample.tokens.special).sum()),
        "activation_norm": passed.activation_norm,
    }  # fmt: skip


def specificity_rows(work: Work, passed: Passed, own: Own) -> list[dict[str, Any]]:
    """Own against matched targets, per unit of edit norm, as the stage has it (docs/causal.md); without outcomes that have no own targets."""
    tokens = passed.sample.tokens
    targets = targets_in(work.model, tokens, passed.hidden, passed.active, own.units, own.bins)
    norm = norms(passed.found, targets, tokens.item_ptr)
    norm[:, 1:] = norm[:, [0]]  # but for rounding
    per_norm = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1), np.nan)
    where = {"direction": slice(1, norm.shape[1])}
    draws = work.run.config.causal.target_draws
    outcomes = outcomes_of(passed.found, targets, per_norm, tokens.item_ptr, where, draws, work.generator(2))
    outcomes = [each for each in outcomes if each.n_own and np.isfinite(each.d).sum() >= LEAST]
    if not outcomes:
        return []
    measured = Measured(0, norm[:, 0], outcomes, float("nan"))
    features, _ = effect_tables([Effect(measured, passed.group, sampled=False, masked=work.request.masked)])
    wanted = [
        "outcome", "masked", "n_items", "n_groups", "n_own", "effect_own", "effect_matched", "specificity", "specificity_low",
        "specificity_high", "p_direction", "p_targets",
    ]  # fmt: skip
    rows: list[dict[str, Any]] = features[wanted].to_dict("records")
    return rows


def unit_table(work: Work, passed: Passed, units: Units, own: Own | None) -> pd.DataFrame:
    """One row per unit and outcome, the largest change first. Columns: COLUMNS.

    change: of values, of the unit's predicted value where the item has the unit; of a distribution, of the unit's probability, mean over the item's
    tokens. random: root mean square of the same over random directions. p_direction: is it farther from 0 than they, two-sided; units share their
    draws (`causal/nulls.py`). p_items: Student's t over items or groups, that its mean is 0. p_value: the larger; null below FEWEST. q over units.
    """
    frames = []
    if passed.probability is not None:
        frames.append(_of_units(work, passed, "token", passed.probability[1], passed.probability[0]))
    else:
        for name, change in (("token", passed.found.token), ("from_item", passed.found.from_item)):
            if change is not None:
                frames.append(_of_units(work, passed, name, *_values_of_units(passed, change, len(units))))
    table = pd.concat(frames, ignore_index=True)
    unit = table["unit"].to_numpy(np.int64)
    table["unit_id"], table["unit_name"] = units.unit_id[unit].astype(str), units.unit_name[unit].astype(str)
    table["own"] = False if own is None or work.model.outcome != "value" else own.units[unit]
    return table[list(COLUMNS)]


def _values_of_units(passed: Passed, change: npt.NDArray[np.float32], n_units: int) -> tuple[Floats, Floats]:
    """Change of each unit in each item, mean over its tokens, [items, units], NaN where there is none; and the mean over items or groups of
    every edit, [edits, units]."""
    at = np.flatnonzero(passed.counts)
    item, unit = passed.item[at], passed.sample.tokens.unit[at].astype(np.int64)
    cell, place, n_tokens = np.unique(item * n_units + unit, return_inverse=True, return_counts=True)
    cell_item, cell_unit = cell // n_units, cell % n_units
    of_items = np.full((passed.n_items, n_units), np.nan)
    of_items[cell_item, cell_unit] = np.bincount(place, change[0, at].astype(np.float64)) / n_tokens
    share = _cell_shares(cell_item, cell_unit, passed.group, n_units)
    to_units = sparse.csr_matrix((share[place] / n_tokens[place], (np.arange(len(at)), unit)), shape=(len(at), n_units))
    return of_items, np.asarray(change[:, at].astype(np.float64) @ to_units)


def _cell_shares(item: Ints, unit: Ints, group: Ints | None, n_units: int) -> Floats:
    """The weight of each pair of item and unit in the unit's mean over items, or over the means of groups: float64 [pairs]."""
    if group is None:
        share: Floats = 1 / np.bincount(unit, minlength=n_units)[unit]
        return share
    pair, place, n_items = np.unique(group[item] * n_units + unit, return_inverse=True, return_counts=True)
    n_groups = np.bincount(pair % n_units, minlength=n_units)
    return np.asarray(1 / (n_items[place] * n_groups[unit]))


def _of_units(
    work: Work, passed: Passed, outcome: str, of_items: npt.NDArray[np.floating], of_edits: Floats
) -> pd.DataFrame:
    """of_items: [items, units]. of_edits: [edits, units]."""
    each = over_groups(of_items.astype(np.float64), passed.group)
    mean, sd, n = moments(each)
    met = np.flatnonzero(n > 0)
    mean, sd, n, drawn = mean[met], sd[met], n[met], of_edits[1:, met].T
    tested = n >= FEWEST
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(tested, sd / np.sqrt(n), np.nan)
        reach = stats.t.ppf(0.975, np.maximum(n - 1, 1)) * error
        p_items = np.where(error > 0, 2 * stats.t.sf(np.abs(mean) / error, np.maximum(n - 1, 1)), np.nan)
    p_items = np.where(error == 0, np.where(mean == 0, 1.0, 0.0), p_items)
    p_direction = p_values(np.where(tested, mean, np.nan), drawn, shared=True)
    p = np.fmax(p_direction, p_items)
    table = pd.DataFrame({
        "unit": met, "outcome": outcome, "masked": work.request.masked,
        "n_items": np.isfinite(of_items[:, met]).sum(axis=0), "n_groups": None if passed.group is None else n,
        "change": mean, "change_low": mean - reach, "change_high": mean + reach,
        "random": np.sqrt((drawn**2).mean(axis=1)), "p_direction": p_direction, "p_items": p_items,
        "p_value": p, "q_value": benjamini_hochberg(p),
    })  # fmt: skip
    return table.iloc[np.lexsort((met, -np.abs(mean)))]


def strongest(table: pd.DataFrame, outcome: str, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the n units that move up the most, and of the n that move down the most, of those in enough items to be tested."""
    rows = table[(table["outcome"] == outcome) & table["p_value"].notna()]
    up, down = rows[rows["change"] > 0], rows[rows["change"] < 0]
    return up.nlargest(n, "change"), down.nsmallest(n, "change")


def outcomes_in(table: pd.DataFrame) -> Sequence[str]:
    """In the order of the table."""
    return list(dict.fromkeys(table["outcome"]))
