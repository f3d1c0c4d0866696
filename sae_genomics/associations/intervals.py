"""How sure an AUROC is, from the number of cells behind it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Z95 = 1.959963984540054


def auroc_interval(
    auroc: npt.ArrayLike, n_in: npt.ArrayLike, n_rest: npt.ArrayLike, z: float = _Z95
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lower and upper end of a confidence interval (95 % by default) of areas under ROC curves; arrays broadcast.

    Newcombe's method 5 (Stat. Med. 2006, 25:559-573): the ends are the areas t with |auroc - t| = z sqrt(V(t)),
    V(t) = t (1 - t) (1 + n (1 - t) / (2 - t) + n t / (1 + t)) / (n_in n_rest), n = (n_in + n_rest) / 2 - 1,
    which is Hanley and McNeil's variance with the two group sizes replaced by their mean. Unlike a Wald interval it has a width at
    an area of 1. NaN where the area is NaN or a group is empty.
    """
    area, first, second = np.broadcast_arrays(*(np.asarray(values, np.float64) for values in (auroc, n_in, n_rest)))
    known = np.isfinite(area) & (first > 0) & (second > 0)
    area, first, second = (np.where(known, values, 1.0) for values in (area, first, second))

    def excess(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.abs(area - t) - z * np.sqrt(auroc_variance(t, first, second))

    ends = []
    for outside in (np.zeros_like(area), np.ones_like(area)):
        out, inside = outside, area.copy()
        for _ in range(40):  # bisection: excess is positive outside the interval and negative within
            middle = (out + inside) / 2
            beyond = excess(middle) > 0
            out, inside = np.where(beyond, middle, out), np.where(beyond, inside, middle)
        ends.append(np.where(known, inside, np.nan))
    return ends[0], ends[1]


def auroc_variance(t: npt.ArrayLike, n_in: npt.ArrayLike, n_rest: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """V(t) above: the variance of an AUROC that is truly t; at 1/2 it is that of Mann and Whitney's U over (n_in n_rest)^2."""
    t, first, second = (np.asarray(values, np.float64) for values in (t, n_in, n_rest))
    mean = (first + second) / 2 - 1
    return np.asarray(t * (1 - t) * (1 + mean * (1 - t) / (2 - t) + mean * t / (1 + t)) / (first * second))
