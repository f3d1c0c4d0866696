"""How specific an edit is: a standardised difference, per item first, then over items or groups.

For item i, with the edit's norm N_i (L2 norm of all that is added to the item's activations),

    d_i = (own_i - matched_i) / N_i.

Over the items (with `data.group_key` over groups, each the mean of its items; tokens never),

    specificity = mean(d) / s0,    interval = (mean(d) +- t(0.975, n - 1) sd(d) / sqrt(n)) / s0.

s0 is one number of the layer, outcome and mask: the median over all random directions of equal norm of the root mean square of d. So 1 is what a
random push does, and no denominator is near zero. There is no ratio of own and matched: matched is often near zero. Nor is d divided
by its own standard deviation: a random direction has an effect of its own, tiny and alike in all items, and would seem as sure as a real one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

LEAST = 2  # items, or groups, from which on there is a specificity
LEAST_FOR_AN_INTERVAL = 3


@dataclass(frozen=True)
class Specificity:
    """value, low, high: float64, NaN where unknown. n: items, or groups, that it rests on."""

    value: float
    low: float
    high: float
    n: int


def moments(d: Floats) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Mean, standard deviation and number of known values of each column."""
    known = np.isfinite(d)
    n = known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, d, 0.0).sum(axis=0) / n
        squares = (np.where(known, d - mean, 0.0) ** 2).sum(axis=0)
        return mean, np.sqrt(squares / (n - 1)), n


def typical_size(d: Floats) -> float:
    """s0: median over columns of the root mean square of d. d: [n, columns] of random directions; 0 without any."""
    known = np.isfinite(d)
    n = known.sum(axis=0)
    size = np.sqrt((np.where(known, d, 0.0) ** 2).sum(axis=0)[n > 0] / n[n > 0])
    return float(np.median(size)) if len(size) else 0.0


def standardised(d: Floats, s0: float) -> Floats:
    """The specificity of each column of d, [n, columns]; NaN with fewer than LEAST known values, 0 where nothing changes."""
    mean, _, n = moments(d)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(mean == 0, 0.0, mean / s0 if s0 > 0 else np.nan)
    return np.where(n >= LEAST, value, np.nan)


def specificity_of(d: Floats, s0: float) -> Specificity:
    """With its interval. d: [n], per unit of edit norm, of items or groups."""
    mean, sd, n = (float(part[0]) for part in moments(d[:, None]))
    value = float(standardised(d[:, None], s0)[0])
    if n < LEAST_FOR_AN_INTERVAL or not np.isfinite(value) or s0 <= 0:
        return Specificity(value, np.nan, np.nan, int(n))
    reach = float(stats.t.ppf(0.975, n - 1)) * sd / np.sqrt(n)
    return Specificity(value, (mean - reach) / s0, (mean + reach) / s0, int(n))
