"""False discovery rate over every test made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def benjamini_hochberg(
    p: npt.NDArray[np.float64], n_tests: int | None = None, counts: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.float64]:
    """q-values: q of the i-th smallest of m p-values is the minimum over j >= i of p_(j) m / j.

    p: float64 [n]; NaN stands for a test that was not made: it does not count, and its q is NaN.
    n_tests: m, when more tests were made than are listed; the others must have p = 1 (or at least none below any listed).
        Default: the number of p-values that are not NaN.
    counts: int [n], how many tests share each p-value; default: one. Millions of tests of few kinds need no long sort.

    Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57:289.
    """
    p = np.asarray(p, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    rank = np.arange(1, len(order) + 1) if counts is None else np.cumsum(counts[order])
    if n_tests is None:
        n_tests = int(rank[-1]) if len(rank) else 0
    scaled = p[order] * (n_tests / rank)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q
