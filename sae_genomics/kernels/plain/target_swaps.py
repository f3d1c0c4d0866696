"""Swaps of targets between known pairs of factors and targets, one after the other.

For a proposal (i, j) with pairs (a, x) and (b, y): they become (a, y) and (b, x), unless one of these is known already or a factor would
become its own target. A proposal that is not possible changes nothing, and counts as a step: so every network with the same numbers of partners
is equally likely in the end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def swap_targets(
    factor: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    own: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
    proposals: npt.NDArray[np.int64],
) -> int:
    """Try the proposals in order; changes `target` and `known`. Returns how many swaps were made.

    factor, target: [pairs]. own: [factors], the target that is the factor itself, or -1. known: [factors, targets].
    proposals: [proposals, 2], positions of pairs.
    """
    made = 0
    for i, j in proposals.tolist():
        a, x, b, y = factor[i], target[i], factor[j], target[j]
        if known[a, y] or known[b, x] or own[a] == y or own[b] == x:
            continue
        known[a, x] = known[b, y] = False
        known[a, y] = known[b, x] = True
        target[i], target[j] = y, x
        made += 1
    return made
