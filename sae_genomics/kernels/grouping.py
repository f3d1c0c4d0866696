"""Rows brought together by their group, so that a group's sums stay in the cache while they grow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def by_group(group: npt.NDArray[np.integer], n_groups: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows group by group, each group's in their order; rows of group -1 are left out.

    Returns ptr, int64 [n_groups + 1], and order, int64 [rows]: the rows of group g are order[ptr[g]] to order[ptr[g + 1]].
    """
    counted = np.flatnonzero(group >= 0)
    order = counted[np.argsort(group[counted], kind="stable")]
    ptr = np.concatenate([[0], np.cumsum(np.bincount(group[counted], minlength=n_groups))])
    return ptr.astype(np.int64), order
