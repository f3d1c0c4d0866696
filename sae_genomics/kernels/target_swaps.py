"""Swaps of targets between known pairs: one swap depends on those before it, so the loop is compiled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import exact_kernel
from sae_genomics.kernels.plain import target_swaps as plain


@instead_of(plain.swap_targets)
def swap_targets(
    factor: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    own: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
    proposals: npt.NDArray[np.int64],
) -> int:
    return int(_swap(factor, target, own, known, proposals))


@exact_kernel
def _swap(factor, target, own, known, proposals):  # type: ignore[no-untyped-def]
    made = 0
    for k in range(len(proposals)):
        i, j = proposals[k, 0], proposals[k, 1]
        a, x, b, y = factor[i], target[i], factor[j], target[j]
        if known[a, y] or known[b, x] or own[a] == y or own[b] == x:
            continue
        known[a, x] = False
        known[b, y] = False
        known[a, y] = True
        known[b, x] = True
        target[i] = y
        target[j] = x
        made += 1
    return made
