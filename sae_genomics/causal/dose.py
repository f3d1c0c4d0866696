"""Dose and response: a feature's activation multiplied, and the shape of what follows.

At dose a the activation z_t of each token becomes a z_t, so that (a - 1) z_t w is added: 1 changes nothing, 0 ablates, 2 doubles. Doses are
tried from 1 outward, on either side, and no farther than the first at which other targets change by more than causal.off_target.

    monotonicity = Spearman's correlation of a and r(a),    r = own - matched
    slope        = (r(a+) - r(a-)) / (a+ - a-), a- and a+ the doses beside 1
    saturation   = r(largest) / (slope x (largest - 1))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """What one dose changes, mean over items: of own targets, of matched ones, and how much of all that are not own (root mean square)."""

    own: float
    matched: float
    off_target: float


@dataclass(frozen=True)
class Curve:
    """Doses that were tried, ascending, and what they gave: float64 [doses]. stopped: bool [doses], beyond the bound."""

    doses: Floats
    own: Floats
    matched: Floats
    off_target: Floats
    stopped: npt.NDArray[np.bool_]

    @property
    def difference(self) -> Floats:
        """own - matched."""
        return self.own - self.matched

    @property
    def monotonicity(self) -> float:
        """Spearman's correlation of dose and difference; NaN below three doses and where nothing changes."""
        known = np.isfinite(self.difference)
        if known.sum() < 3 or np.ptp(self.difference[known]) == 0:
            return float("nan")
        return float(stats.spearmanr(self.doses[known], self.difference[known]).statistic)

    @property
    def slope(self) -> float:
        """Of the difference at dose 1, through the doses beside it; NaN without one on either side."""
        at = int(np.searchsorted(self.doses, 1.0))
        low, high = at - 1, at + 1
        if low < 0 or high >= len(self.doses):
            return float("nan")
        return float((self.difference[high] - self.difference[low]) / (self.doses[high] - self.doses[low]))

    @property
    def saturation(self) -> float:
        """Of the largest dose; NaN where the slope is within rounding of 0, or no dose above 1 was tried."""
        largest = self.doses[-1]
        promised = self.slope * (largest - 1)
        if largest <= 1 or not abs(promised) > 1e-6 * max(float(np.nanmax(np.abs(self.difference))), 1e-12):
            return float("nan")
        return float(self.difference[-1] / promised)

    def stopped_side(self, above: bool) -> float:
        """The first dose beyond the bound above, or below, 1; NaN where there is none."""
        beyond = self.doses[self.stopped & ((self.doses > 1) if above else (self.doses < 1))]
        if not len(beyond):
            return float("nan")
        return float(beyond.min() if above else beyond.max())


def curve(doses: Floats, respond: Callable[[list[float]], list[Response]], bound: float) -> Curve:
    """Try doses from 1 outward. doses: 1 among them. respond: what doses change, several at once. bound: of off_target."""
    tried = {1.0: Response(0.0, 0.0, 0.0)}
    above, below = sorted(doses[doses > 1].tolist()), sorted(doses[doses < 1].tolist(), reverse=True)
    while above or below:
        nearest = [side[0] for side in (above, below) if side]
        tried |= dict(zip(nearest, respond(nearest), strict=True))
        above, below = ([] if side and tried[side[0]].off_target > bound else side[1:] for side in (above, below))
    order = sorted(tried)
    found = [tried[dose] for dose in order]
    off_target = np.array([each.off_target for each in found])
    return Curve(
        np.array(order), np.array([each.own for each in found]), np.array([each.matched for each in found]), off_target,
        off_target > bound,
    )  # fmt: skip
