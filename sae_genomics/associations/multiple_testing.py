"""False discovery rate over every test made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def benjamini_hochberg(p: npt.NDArray[np.float64], n_tests: int | None = None) -> npt.NDArray[np.float64]:
    """q-values: q of the i-th smallest of m p-values is the minimum over j >= i of p_(j) m / j.

    p: float64 [n]; NaN stands for a test that was not made: it does not count, and its q is NaN.
    n_tests: m, when more tests were made than are listed; the others must have p = 1 (or at least none below any listed).
        Default: the number of p-values that are not NaN.

    Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57:289.
    """
    p = np.asarray(p, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    m = len(made) if n_tests is None else n_tests
    order = made[np.argsort(p[made], kind="stable")]
    scaled = p[order] * (m / np.arange(1, len(order) + 1))
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q
