"""Regulons rewired: every factor keeps its number of targets, and every target its number of factors.

Two known pairs (a, x) and (b, y) become (a, y) and (b, x), where neither is known yet and no factor becomes its own target. A round
parts all pairs at random into twos and tries each. Of the swaps of one round that would make the same pair, the first is made.
A network is mixed after MIXING swaps tried for each pair; from one to the next BETWEEN.

Maslov and Sneppen 2002, Science 296:910.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sae_genomics.progress import stop_point

Positions = npt.NDArray[np.int64]
MIXING, BETWEEN = 50, 10  # swaps tried per pair


def rewirings(
    factor: Positions, target: Positions, own: Positions, n_targets: int, n: int, seed: list[int]
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
        for _ in range(2 * (BETWEEN if number else MIXING)):  # a round tries half a swap per pair
            swap_once(factor, target, own, known, generator)
        yield target.copy()


def swap_once(
    factor: Positions,
    target: Positions,
    own: Positions,
    known: npt.NDArray[np.bool_],
    generator: np.random.Generator,
) -> int:
    """One round of swaps; changes `target` and `known` (bool [factors, targets]). Returns how many were made."""
    order = generator.permutation(len(target))
    half = len(order) // 2
    one, other = order[:half], order[half : 2 * half]
    a, x, b, y = factor[one], target[one], factor[other], target[other]
    possible = (a != b) & (x != y) & ~known[a, y] & ~known[b, x] & (own[a] != y) & (own[b] != x)
    one, other = one[possible], other[possible]
    a, x, b, y = factor[one], target[one], factor[other], target[other]
    made = np.concatenate([a * known.shape[1] + y, b * known.shape[1] + x])
    first = np.zeros(len(made), dtype=np.bool_)
    first[np.unique(made, return_index=True)[1]] = True
    alone = first[: len(one)] & first[len(one) :]
    one, other, a, x, b, y = (each[alone] for each in (one, other, a, x, b, y))
    known[a, x] = known[b, y] = False
    known[a, y] = known[b, x] = True
    target[one], target[other] = y, x
    return len(one)
