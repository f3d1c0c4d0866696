"""Regulons rewired: every factor keeps its number of targets, and every target its number of factors.

Pairs of known pairs are drawn at random, and their targets swapped where that is possible (`kernels.target_swaps`). A network is mixed after
MIXING such proposals for each known pair; from one to the next BETWEEN.

Maslov and Sneppen 2002, Science 296:910.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.target_swaps import swap_targets
from sae_genomics.progress import stop_point

Positions = npt.NDArray[np.int64]
MIXING, BETWEEN = 50, 10  # proposals per pair


def rewirings(
    factor: Positions, target: Positions, own: Positions, n_targets: int, n: int, seed: Sequence[int]
) -> Iterator[Positions]:
    """n times the targets of the pairs after swaps: int64 [pairs]; the factors stay as they are.

    factor, target: int64 [pairs], distinct pairs. own: int64 [factors], the target that is the factor itself, or -1.
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    known = np.zeros((len(own), n_targets), dtype=np.bool_)
    known[factor, target] = True
    target = target.copy()
    for number in range(n):
        stop_point()
        for _ in range(BETWEEN if number else MIXING):
            swap_targets(factor, target, own, known, generator.integers(0, len(target), (len(target), 2)))
        yield target.copy()
