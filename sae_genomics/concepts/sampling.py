"""Which items and tokens stand for a concept: enough for a fit, spread evenly, and no more for a million items than for a thousand."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.triples import TokenBlock
from sae_genomics.concepts.concept import Bools, Concept, Ints, NamedConcepts

if TYPE_CHECKING:
    from sae_genomics.concepts.section import ConceptsConfig


LEAST_SPAN_ITEMS = 8


@dataclass(frozen=True, eq=False)
class Sample:
    """What the pass over a layer keeps.

    mean_items: bool [items], whose mean activation is kept. token_items: bool [items], of which single tokens are kept.
    units: bool [units], of which single tokens are kept, for gene sets. tokens_per_item, tokens_per_gene: at most.
    unit_tokens: int64 [units], stored tokens of each such unit on its side of the split.
    span_items: by concept's id, the items whose tokens stand for it.
    """

    mean_items: Bools
    token_items: Bools
    units: Bools
    tokens_per_item: int
    tokens_per_gene: int
    unit_tokens: Ints
    span_items: dict[str, Ints]


def choose(named: NamedConcepts, labels: Ints, unit_tokens: Ints, settings: ConceptsConfig, seed: int) -> Sample:
    """labels: int64 [items], number of each item's label, -1 for none. unit_tokens: as in `Sample`."""
    n_items = len(named.group)
    rng = np.random.default_rng([seed, zlib.crc32(b"concepts.sample")])
    mean_items, token_items = np.zeros(n_items, bool), np.zeros(n_items, bool)
    units = np.zeros(len(named.heldout_units), bool)
    of_items = [each for each in named if each.level == "item"]
    if of_items:
        mean_items[_even_items(of_items, labels, settings.max_items, rng)] = True
    span_items = _span_items(named, settings, rng.permutation(n_items))
    for chosen in span_items.values():
        token_items[chosen] = True
    for concept in named:
        units[concept.units] = True
        units[concept.other_units] = True
    return Sample(
        mean_items, token_items, units, settings.tokens_per_item, settings.tokens_per_gene, unit_tokens, span_items
    )


def _even_items(concepts: list[Concept], labels: Ints, most: int, rng: np.random.Generator) -> Ints:
    """At most `most` items that count for a concept: those of examples first, then the same number of every label."""
    counts = np.zeros(len(labels), bool)
    named = np.zeros(len(labels), bool)
    for concept in concepts:
        counts[concept.items] = counts[concept.others] = True
        if concept.kind == "examples":
            named[concept.items] = True
    candidates = rng.permutation(np.flatnonzero(counts))
    order = candidates[np.argsort(labels[candidates], kind="stable")]
    number = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    number[named[order]] = -1
    return np.sort(order[np.argsort(number, kind="stable")[:most]])


def _span_items(named: NamedConcepts, settings: ConceptsConfig, order: Ints) -> dict[str, Ints]:
    """By concept's id, the items whose tokens stand for it: on each side of the split as many with it as without, at most.

    order: [items], random. All concepts take the first ones in this order, so that they share what they can. Halved until the tokens of
    all of them are at most `max_tokens`.
    """
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    concepts = [each for each in named if each.spans is not None]
    most = settings.span_items
    while True:
        found = {each.id: _first_items(each, named.heldout_of(each), most, rank) for each in concepts}
        distinct = len(np.unique(np.concatenate(list(found.values())))) if found else 0
        if distinct * settings.tokens_per_item <= settings.max_tokens or most <= LEAST_SPAN_ITEMS:
            return found
        most = max(most // 2, LEAST_SPAN_ITEMS)


def _first_items(concept: Concept, heldout: Bools, most: int, rank: Ints) -> Ints:
    parts = []
    for side in (concept.items, concept.others):
        for part in (False, True):
            items = side[heldout[side] == part]
            parts.append(items[np.argsort(rank[items])[:most]])
    return np.sort(np.concatenate(parts))


def even_tokens(row: Ints, item: Ints, most: int) -> Ints:
    """At most `most` of each item's rows, at even distances from a start that depends on the item: those of `row` that are taken.

    row: ascending. item: of each row, ascending.
    """
    if not len(row):
        return row
    first = np.searchsorted(item, item)
    n = np.searchsorted(item, item, side="right") - first
    number = np.arange(len(row)) - first
    wanted = np.minimum(n, most)
    start = (item * 2654435761 % 4294967296) % n
    before = (number * wanted + start) // n
    return row[(number + 1) * wanted + start >= (before + 1) * n]


class EvenUnits:
    """Takes at most `most` tokens of each unit, at even distances over the whole store, from blocks in order."""

    def __init__(self, totals: Ints, most: int):
        self.totals, self.most = totals, most
        self._seen = np.zeros_like(totals)

    def take(self, row: Ints, unit: npt.NDArray[np.integer]) -> Ints:
        """Those of `row` that are taken. unit: of each row; its tokens so far are counted on."""
        order = np.argsort(unit, kind="stable")
        ordered = unit[order]
        number = np.arange(len(row)) - np.searchsorted(ordered, ordered) + self._seen[ordered]
        self._seen += np.bincount(unit, minlength=len(self._seen))
        n = np.maximum(self.totals[ordered], 1)
        wanted = np.minimum(n, self.most)
        taken = (number + 1) * wanted // n != number * wanted // n
        return np.sort(row[order[taken]])


def unit_rows(block: TokenBlock, units: Bools, heldout_units: Bools, heldout: Bools) -> Ints:
    """Rows of a block that may stand for a unit: training units in training items, held-out ones in held-out items: ascending."""
    item = block.first_item + np.repeat(np.arange(block.n_items), np.diff(block.item_ptr))
    unit = np.maximum(block.unit, 0)
    if not len(units):
        return np.zeros(0, np.int64)
    return np.flatnonzero((block.unit >= 0) & units[unit] & (heldout_units[unit] == heldout[item]))
