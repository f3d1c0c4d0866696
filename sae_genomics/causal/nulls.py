"""Four nulls of an edit: what each one draws, and p.

Ablating feature f adds c_t w to the activation of token t: w is its decoder direction, c_t = -z_t. Every edit here has such a form (`edits.Edit`: `turned`, `permuted`).

| null | edit | asks whether |
|---|---|---|
| direction | c_t \\|w\\| u, u uniform on the sphere: the same norm at each token | any push at these tokens would do it |
| feature | another feature of equal firing rate and mean activation is ablated, where it fires | any feature would do it |
| permuted | c_p(t) w, p a permutation of the sequence's tokens | it matters where the feature fires |
| targets | c_t w, as it is | any matched targets would change as much |

With x the observed specificity and y its n draws, p = (1 + number of |y| >= |x|) / (1 + n). With n draws p is at least 1 / (n + 1), and each draw
is a forward pass. Below OWN_DRAWS the features of a layer therefore share their draws, each number on the scale of its own feature's others:

    t(x) = |x| / scale(y),    t(y_j) = |y_j| / scale(x and the other y),    p = (1 + number of t(y) of all features >= t(x)) / (1 + all draws)

scale^2 is a mean square plus the mean square of all draws of all features. So it is never near zero, and one draw with an effect stands out no
more in a feature whose other draws do next to nothing than in one of the usual size. When the null holds, x and its y
are exchangeable, so t(x) is like any t(y) of its feature. That t has one distribution in all features is an assumption.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NULLS = ("direction", "feature", "permuted", "targets")
OWN_DRAWS = 99  # of a feature, from which on its p needs no other feature's


def equal_features(rate: Floats, mean: Floats, feature: int, n: int, among: npt.NDArray[np.bool_]) -> Ints:
    """The n features that are nearest in log2 firing rate and log2 mean activation, `feature` itself left out; fewer where fewer are possible.

    among: bool [features], those that are possible.
    """
    others = np.flatnonzero((rate > 0) & (mean > 0) & among)
    others = others[others != feature]
    if not len(others) or not rate[feature] > 0:
        return others[:0]
    distance = np.hypot(np.log2(rate[others]) - np.log2(rate[feature]), np.log2(mean[others]) - np.log2(mean[feature]))
    return others[np.lexsort((others, distance))[:n]]


def p_values(observed: Floats, draws: Floats, shared: bool = False) -> Floats:
    """p of each feature, two-sided: float64 [features]; NaN where there is no specificity or no draw.

    observed: [features]. draws: [features, n], NaN where there is none. shared: features share their draws, however many there are.
    """
    known = np.isfinite(draws)
    n = known.sum(axis=1)
    if draws.shape[1] >= OWN_DRAWS and not shared:
        exceed = (np.where(known, np.abs(draws), -np.inf) >= _reached(np.abs(observed))[:, None]).sum(axis=1)
        total = n
    else:
        of_observed, of_draws = _scaled(observed, draws)
        pool = np.sort(of_draws[np.isfinite(of_draws)])
        exceed = len(pool) - np.searchsorted(pool, _reached(of_observed), side="left")
        total = np.full(len(observed), len(pool))
    return np.where(np.isfinite(observed) & (n > 0) & (total > 0), (1 + exceed) / (1 + total), np.nan)


def _reached(size: Floats) -> Floats:
    """Draws that are the same number up to rounding are ties, and count against the feature."""
    return size * (1 - 1e-9)


def _scaled(observed: Floats, draws: Floats) -> tuple[Floats, Floats]:
    """t of the observed numbers, [features], and of the draws, [features, n]: see the module's text. Features that are not tested give no draws."""
    tested = np.isfinite(observed)[:, None]
    known = np.isfinite(draws) & tested
    squares, own = np.where(known, draws, 0.0) ** 2, np.where(tested, observed[:, None], 0.0) ** 2
    n, total = known.sum(axis=1, keepdims=True), squares.sum(axis=1, keepdims=True)
    least = squares.sum() / max(int(known.sum()), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_observed = np.sqrt(own / (total / n + least))[:, 0]
        of_draws = np.sqrt(squares / ((total - squares + own) / n + least))
    # Where nothing changes at all, 0 / 0 is no effect.
    of_observed = np.where(np.isnan(of_observed) & tested[:, 0], 0.0, of_observed)
    return of_observed, np.where(known, np.nan_to_num(of_draws), np.nan)
