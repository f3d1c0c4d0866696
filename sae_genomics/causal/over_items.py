"""A number per item to one number with its interval: items are the unit, or their groups where there are some."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
FEWEST = 3  # items, or groups, from which on an interval is given


class Mean(NamedTuple):
    """A mean over items, or over groups of items, with its 95 % interval; NaN ends below FEWEST of them."""

    value: float
    low: float
    high: float
    n_items: int
    n_groups: int | None


def over_groups(d: Float64, group: Int64 | None) -> Float64:
    """Each group's mean over its items that are known: [items, ...] -> [groups, ...]; the items themselves without groups."""
    if group is None:
        return d
    place = np.unique(group, return_inverse=True)[1]
    flat = d.reshape(len(d), -1)
    known = np.isfinite(flat)
    member = (place[None, :] == np.arange(int(place.max(initial=-1)) + 1)[:, None]).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (member @ np.where(known, flat, 0.0)) / (member @ known)
    return means.reshape(len(member), *d.shape[1:])


def mean_over(values: Float64, group: Int64 | None) -> Mean:
    """m -+ t(0.975, n - 1) sd / sqrt(n), over items, or over the means of groups."""
    each = over_groups(values, group)
    each = each[~np.isnan(each)]
    n_items, n = int((~np.isnan(values)).sum()), len(each)
    n_groups = None if group is None else n
    if not n:
        return Mean(np.nan, np.nan, np.nan, 0, n_groups)
    value = float(each.mean())
    if n < FEWEST:
        return Mean(value, np.nan, np.nan, n_items, n_groups)
    half = float(stats.t.ppf(0.975, n - 1) * each.std(ddof=1) / np.sqrt(n))
    return Mean(value, value - half, value + half, n_items, n_groups)


def p_above(value: float, null: Float64) -> float:
    """(1 + draws of the null that are as high) / (1 + draws); NaN for a value that is not known."""
    null = null[~np.isnan(null)]
    if np.isnan(value) or not len(null):
        return float("nan")
    tolerance = 1e-9 * max(1.0, abs(value))  # a draw that equals the value up to rounding is as high
    return float((1 + (null >= value - tolerance).sum()) / (1 + len(null)))
