"""Spans as rows of a block of tokens.

Only items that carry at least one span of any concept can tell where a concept is absent. Items without any span were perhaps
never annotated, so their tokens count for nothing. Neither do tokens without a unit: special tokens, unknown letters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.associations.spans.halves import SCORE, Halves, make_halves, one_per_group
from sae_genomics.associations.triples import TokenBlock
from sae_genomics.kernels.arrays import Ints, Segments

_ITEM_SHIFT = 32


@dataclass(frozen=True)
class Stretches:
    """Parts of items with a concept, ascending by item, then concept, then start: int64 [n] each. start, stop: 0-based, half-open residues."""

    item: Ints
    concept: Ints
    start: Ints
    stop: Ints

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True)
class Concepts:
    """All spans of a run.

    concept, name: text [concepts]. spans: as annotated. merged: the same residues, where spans of one concept and item do not overlap.
    tells: bool [items], whether the item has a span. group: int64 [items]; None without groups. halves: of the items.
    tested: bool [merged], whether the pair of item and concept is an observation of the test (see `scores.py`).
    """

    concept: npt.NDArray[np.object_]
    name: npt.NDArray[np.object_]
    spans: Stretches
    merged: Stretches
    tells: npt.NDArray[np.bool_]
    group: Ints | None
    halves: Halves
    tested: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.concept)

    @staticmethod
    def of(spans: pd.DataFrame, groups: pd.Series | None, n_items: int, seed: int) -> Concepts:
        """From the data kind's spans and items.

        spans: item_index, start, stop, concept, name. groups: [items], text, None for an item of its own; None where no item has one.
        """
        names, concept = np.unique(spans["concept"].to_numpy(object).astype(str), return_inverse=True)
        titles = spans.drop_duplicates("concept").set_index(spans["concept"].drop_duplicates().astype(str))["name"]
        order = np.lexsort((spans["start"], concept, spans["item_index"]))
        item, start, stop = (spans[column].to_numpy(np.int64)[order] for column in ("item_index", "start", "stop"))
        stretches = Stretches(item, concept[order].astype(np.int64), start, stop)
        merged = _merged(stretches)
        group = _numbers(groups)
        halves = make_halves(stretches.item, stretches.concept, group, n_items, len(names), seed)
        tells = np.zeros(n_items, bool)
        tells[item] = True
        return Concepts(
            names.astype(object), titles.reindex(names).to_numpy(object), stretches, merged, tells, group, halves,
            _tested(merged, group, halves, len(names), seed),
        )  # fmt: skip


def _numbers(groups: pd.Series | None) -> Ints | None:
    """int64 [items]; an item without a group gets a number of its own."""
    if groups is None or groups.isna().all():
        return None
    codes = pd.factorize(groups)[0].astype(np.int64)
    missing = codes < 0
    codes[missing] = codes.max() + 1 + np.arange(missing.sum())
    return codes


def _tested(merged: Stretches, group: Ints | None, halves: Halves, n_concepts: int, seed: int) -> npt.NDArray[np.bool_]:
    scoring = halves.of(merged.item, merged.concept) == SCORE
    pairs, pair = np.unique(merged.item * n_concepts + merged.concept, return_inverse=True)
    item, concept = pairs // n_concepts, pairs % n_concepts
    in_half = np.flatnonzero(halves.of(item, concept) == SCORE)
    chosen = np.zeros(len(pairs), bool)
    chosen[in_half] = one_per_group(item[in_half], concept[in_half], group, halves.single, seed)
    tested: npt.NDArray[np.bool_] = chosen[pair] & scoring
    return tested


def _merged(spans: Stretches) -> Stretches:
    """Union of the spans of each concept and item."""
    if not len(spans):
        return spans
    new_pair = np.ones(len(spans), bool)
    new_pair[1:] = (np.diff(spans.item) != 0) | (np.diff(spans.concept) != 0)
    far = np.int64(1) << _ITEM_SHIFT
    shift = np.cumsum(new_pair) * far  # keeps the running maximum within a pair
    reach = np.maximum.accumulate(spans.stop + shift)
    first = np.ones(len(spans), bool)
    first[1:] = spans.start[1:] + shift[1:] > reach[:-1]
    begins = np.flatnonzero(first)
    stop = np.maximum.reduceat(spans.stop, begins)
    return Stretches(spans.item[begins], spans.concept[begins], spans.start[begins], stop)


@dataclass(frozen=True)
class SpanBlock:
    """The rows of a block that count for spans: those with a unit, of items that can tell.

    row: int64 [n], their rows within the block. item: int64 [n], among the run's items. position: int64 [n].
    item_start, item_stop: int64 [n], the counted rows of the row's item. half: int8 [n, 2], of its item by group, by item.
    merged, spans: the block's stretches as segments of these rows; column: 2 x concept + half. merged_number: int64 [merged], which stretch.
    """

    row: Ints
    item: Ints
    position: Ints
    item_start: Ints
    item_stop: Ints
    half: npt.NDArray[np.int8]
    merged: Segments
    spans: Segments
    merged_number: Ints

    def __len__(self) -> int:
        return len(self.row)


def span_block(block: TokenBlock, concepts: Concepts) -> SpanBlock:
    """What of a block counts, and where its spans are. Residue r of an item, 0-based, is the token at position r + 1."""
    if block.position is None:
        raise ValueError("spans need the position of each token within its item")
    item_of = block.first_item + np.repeat(np.arange(block.n_items), np.diff(block.item_ptr))
    row = np.flatnonzero((block.unit >= 0) & concepts.tells[item_of])
    item, position = item_of[row], block.position[row].astype(np.int64)
    key = (item << _ITEM_SHIFT) | position
    if bool((np.diff(key) < 0).any()):
        order = np.argsort(key, kind="stable")
        row, item, position, key = row[order], item[order], position[order], key[order]
    last = block.first_item + block.n_items
    merged, number = _segments(concepts.merged, concepts.halves, key, block.first_item, last)
    spans, _ = _segments(concepts.spans, concepts.halves, key, block.first_item, last)
    item_start = np.searchsorted(item, item)
    item_stop = np.searchsorted(item, item, side="right")
    halves = np.stack([concepts.halves.by_group[item], concepts.halves.by_item[item]], axis=1)
    return SpanBlock(row, item, position, item_start, item_stop, halves, merged, spans, number)


def _segments(
    stretches: Stretches, halves: Halves, key: Ints, first_item: int, last_item: int
) -> tuple[Segments, Ints]:
    """Stretches of the items first_item to last_item that have a counted row, and which of all stretches they are."""
    a, b = np.searchsorted(stretches.item, [first_item, last_item])
    item, concept = stretches.item[a:b], stretches.concept[a:b]
    start = np.searchsorted(key, (item << _ITEM_SHIFT) | (stretches.start[a:b] + 1))
    stop = np.searchsorted(key, (item << _ITEM_SHIFT) | (stretches.stop[a:b] + 1))
    counted = stop > start
    start, stop, item, concept = start[counted], stop[counted], item[counted], concept[counted]
    before = np.full(len(start), -1, dtype=np.int64)
    same = (np.diff(item) == 0) & (np.diff(concept) == 0)
    before[1:][same] = stop[:-1][same]
    column = 2 * concept + halves.of(item, concept)
    return Segments(start, stop, column, before), np.arange(a, b)[counted]
