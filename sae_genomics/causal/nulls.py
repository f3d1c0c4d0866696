"""Four nulls of an edit: what each one draws, and p.

Ablating feature f adds c_t w to the activation of token t: w is its decoder direction, c_t = -z_t. Every edit here has that form.

| null | edit | asks whether |
|---|---|---|
| direction | c_t \\|w\\| u, u uniform on the sphere: the same norm at each token | any push at these tokens would do it |
| feature | c_t \\|w\\| w_g / \\|w_g\\|, g a feature of equal firing rate and mean activation | any direction that the SAE uses would do it |
| permuted | c_p(t) w, p a permutation of the item's tokens | it matters where the feature fires |
| targets | c_t w, as it is | any matched targets would change as much |

With x the observed specificity and y its draws, p = (1 + number of |y| >= |x|) / (1 + n). The specificity is standardised within each
feature, so with few draws the features of a layer share theirs (see `p_values`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NULLS = ("direction", "feature", "permuted", "targets")
OWN_DRAWS = 99  # of a feature, from which on its p needs no other feature's


def random_directions(generator: np.random.Generator, n: int, d_model: int) -> Float32:
    """Uniform on the sphere: float32 [n, d_model], norm 1."""
    drawn = generator.standard_normal((n, d_model))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def equal_features(rate: Floats, mean: Floats, feature: int, n: int) -> Ints:
    """The n features that are nearest in log2 firing rate and log2 mean activation, `feature` itself left out; fewer where fewer fire."""
    others = np.flatnonzero((rate > 0) & (mean > 0))
    others = others[others != feature]
    if not len(others) or not rate[feature] > 0:
        return others[:0]
    distance = np.hypot(np.log2(rate[others]) - np.log2(rate[feature]), np.log2(mean[others]) - np.log2(mean[feature]))
    return others[np.lexsort((others, distance))[:n]]


def permuted(
    generator: np.random.Generator, coefficients: Float32, item: Ints, counted: npt.NDArray[np.bool_]
) -> Float32:
    """The coefficients dealt out anew among the tokens of each item that count: [T]. item: ascending."""
    rows = np.flatnonzero(counted)
    shuffled = rows[np.lexsort((generator.random(len(rows)), item[rows]))]
    dealt = np.zeros_like(coefficients)
    dealt[rows] = coefficients[shuffled]
    return dealt


def p_values(observed: Floats, draws: Floats) -> Floats:
    """p of each feature, two-sided: float64 [features]; NaN where there is no specificity or no draw.

    observed: [features]. draws: [features, n], NaN where there is none. Below OWN_DRAWS a feature the draws of all features are one
    null: n draws alone could give no p below 1 / (n + 1). A specificity is a standardised number, so that they can be compared.
    """
    known = np.isfinite(draws)
    size = np.where(known, np.abs(draws), -np.inf)
    here = np.abs(observed)
    # Draws that are the same number up to rounding are ties, and count against the feature.
    reached = here * (1 - 1e-9)
    if draws.shape[1] >= OWN_DRAWS:
        n, exceed = known.sum(axis=1), (size >= reached[:, None]).sum(axis=1)
    else:
        pool = np.sort(size[known])
        n = np.full(len(observed), len(pool))
        exceed = len(pool) - np.searchsorted(pool, reached, side="left")
    return np.where(np.isfinite(observed) & (n > 0), (1 + exceed) / (1 + n), np.nan)
