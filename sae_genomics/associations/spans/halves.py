"""Which items choose a threshold and a unit, and which items score the choice.

Groups (families, clusters) are cut in two halves. Half 0 chooses, half 1 scores; no group is in both. A greedy rule spreads the groups
of every concept over both halves: groups of rare concepts come first, and each goes where its concepts are short of groups.

A concept whose scoring half holds fewer than LEAST_GROUPS groups, or whose choosing half holds none, says nothing about
other groups. Its items are then spread over two halves one by one, and the table says so. Without groups every item is a group.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.data.groups import LEAST_FOR_A_TEST

LEAST_GROUPS = LEAST_FOR_A_TEST
CHOOSE, SCORE = 0, 1


@dataclass(frozen=True)
class Halves:
    """Halves of items, CHOOSE or SCORE.

    by_group, by_item: int8 [items], where whole groups, or single items, are dealt out.
    single: bool [concepts], whether the concept's items are dealt out one by one.
    """

    by_group: npt.NDArray[np.int8]
    by_item: npt.NDArray[np.int8]
    single: npt.NDArray[np.bool_]

    def of(self, item: npt.NDArray[np.integer], concept: npt.NDArray[np.integer]) -> npt.NDArray[np.int8]:
        """The half of each pair of item and concept: int8 [n]."""
        halves: npt.NDArray[np.int8] = np.where(self.single[concept], self.by_item[item], self.by_group[item])
        return halves


def make_halves(
    item: npt.NDArray[np.integer],
    concept: npt.NDArray[np.integer],
    group: npt.NDArray[np.integer] | None,
    n_items: int,
    n_concepts: int,
    seed: int,
) -> Halves:
    """Deal out items.

    item, concept: int [spans]. group: int [items], the number of each item's group; None where there are no groups.
    """
    members, of_concept = np.asarray(item, dtype=np.int64), np.asarray(concept, dtype=np.int64)
    by_item = _spread(members, of_concept, n_items, n_concepts, _generator(seed, b"spans items"))
    if group is None:
        return Halves(by_item, by_item, np.zeros(n_concepts, bool))
    groups: npt.NDArray[np.int64] = np.asarray(group, dtype=np.int64)
    n_groups = int(groups.max(initial=-1)) + 1
    of_groups = _spread(groups[members], of_concept, n_groups, n_concepts, _generator(seed, b"spans groups"))
    by_group = of_groups[groups]
    pairs = np.unique(groups[members] * n_concepts + of_concept)
    n_in_half = np.zeros((2, n_concepts), dtype=np.int64)
    np.add.at(n_in_half, (of_groups[pairs // n_concepts], pairs % n_concepts), 1)
    single = (n_in_half[CHOOSE] < 1) | (n_in_half[SCORE] < LEAST_GROUPS)
    return Halves(by_group, by_item, single)


def one_per_group(
    item: npt.NDArray[np.int64],
    concept: npt.NDArray[np.int64],
    group: npt.NDArray[np.integer] | None,
    single: npt.NDArray[np.bool_],
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Of pairs of item and concept, one pair per group and concept, drawn by the seed; all pairs of concepts in `single`: bool [pairs]."""
    if group is None:
        return np.ones(len(item), bool)
    order = _generator(seed, b"spans representatives").permutation(len(item))
    n_concepts = len(single)
    key = np.asarray(group, np.int64)[item[order]] * n_concepts + concept[order]
    chosen = np.zeros(len(item), bool)
    chosen[order[np.unique(key, return_index=True)[1]]] = True
    return chosen | single[concept]


def _generator(seed: int, purpose: bytes) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(purpose)]))


def _spread(
    member: npt.NDArray[np.int64],
    concept: npt.NDArray[np.int64],
    n_members: int,
    n_concepts: int,
    generator: np.random.Generator,
) -> npt.NDArray[np.int8]:
    """A half for each member (item or group) so that every concept is in both halves as far as that can be: int8 [members]."""
    # members without a concept count for nothing
    half: npt.NDArray[np.int8] = (generator.permutation(n_members) % 2).astype(np.int8)
    pairs = np.unique(member * max(n_concepts, 1) + concept)
    member, concept = pairs // max(n_concepts, 1), pairs % max(n_concepts, 1)
    size = np.bincount(concept, minlength=n_concepts)
    ptr = np.searchsorted(member, np.arange(n_members + 1))
    rarest = np.full(n_members, np.iinfo(np.int64).max)
    np.minimum.at(rarest, member, size[concept])
    order = np.flatnonzero(np.diff(ptr) > 0)
    order = order[generator.permutation(len(order))]
    order = order[np.argsort(rarest[order], kind="stable")]
    _deal(order, ptr, concept, size, half)
    return half


def _deal(
    order: npt.NDArray[np.int64],
    ptr: npt.NDArray[np.int64],
    concept: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64],
    half: npt.NDArray[np.int8],
) -> None:
    """Each member goes to the half where its concepts are short of members, a rare concept having more weight.

    order: members, by turn. ptr, concept: the concepts of member m are concept[ptr[m]] to concept[ptr[m + 1]]. size: members of each concept.
    half: [members], filled in for those in `order`. A turn depends on those before it, so this is a loop.
    """
    sizes, bounds, concepts = size.tolist(), ptr.tolist(), concept.tolist()
    balance = [0.0] * len(sizes)  # members in half 0 minus members in half 1
    total = 0
    for member in order.tolist():
        concepts_of_member = concepts[bounds[member] : bounds[member + 1]]
        need = 0.0
        for number in concepts_of_member:
            need += balance[number] / sizes[number]
        side = 1 if need > 0 or (need == 0 and total >= 0) else 0  # the first of a concept scores
        half[member] = side
        step = 1 - 2 * side
        total += step
        for number in concepts_of_member:
            balance[number] += step
