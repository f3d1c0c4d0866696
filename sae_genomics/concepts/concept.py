"""What a concept is: which items, tokens or units have it, and which lack it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from sae_genomics.concepts.section import Kind

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
POSITIVE, NEGATIVE, UNCOUNTED = 1, 0, -1
_ITEM_SHIFT = 32


def _no_rows() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Spans:
    """Parts of items, ascending by item, then start, none overlapping another: int64 [n]. start, stop: 0-based, half-open."""

    item: Ints = field(default_factory=_no_rows)
    start: Ints = field(default_factory=_no_rows)
    stop: Ints = field(default_factory=_no_rows)

    def __len__(self) -> int:
        return len(self.item)

    @staticmethod
    def of(item: npt.ArrayLike, start: npt.ArrayLike, stop: npt.ArrayLike) -> Spans:
        """In any order; overlapping ones become one."""
        items, starts, stops = (np.asarray(values, np.int64) for values in (item, start, stop))
        if not len(items):
            return Spans()
        order = np.lexsort((starts, items))
        items, first, last = items[order], starts[order], stops[order]
        shift = items << _ITEM_SHIFT
        reach = np.maximum.accumulate(last + shift)
        is_new = np.ones(len(items), bool)
        is_new[1:] = first[1:] + shift[1:] > reach[:-1]
        begins = np.flatnonzero(is_new)
        return Spans(items[begins], first[begins], np.maximum.reduceat(last, begins))

    def contain(self, item: Ints, residue: Ints) -> Bools:
        """Whether each residue (0-based) of each item is within one: bool, of the arrays' shape."""
        if not len(self):
            return np.zeros(np.shape(item), bool)
        key = (item << _ITEM_SHIFT) + residue
        before = np.searchsorted((self.item << _ITEM_SHIFT) + self.start, key, side="right") - 1
        inside: Bools = (before >= 0) & (key < ((self.item << _ITEM_SHIFT) + self.stop)[np.maximum(before, 0)])
        return inside


@dataclass(frozen=True, eq=False)
class Concept:
    """One concept of a run. Items are rows of `DataKind.read_items`, units rows of units.parquet; all arrays ascend."""

    id: str
    """`kind:name`, unique within the run"""
    kind: Kind
    name: str
    """what people call it"""
    level: Literal["item", "token"]
    """what carries it: the item as a whole, or single tokens"""
    items: Ints = field(default_factory=_no_rows)
    """items that have it; empty for gene sets"""
    others: Ints = field(default_factory=_no_rows)
    """items that could tell and lack it; empty for gene sets"""
    spans: Spans | None = None
    """where it is in `items`, for spans"""
    other_spans: Spans | None = None
    """tokens that lack it, where only these count; None: every other token of `items` and `others`"""
    units: Ints = field(default_factory=_no_rows)
    """units that have it: a gene set's genes"""
    other_units: Ints = field(default_factory=_no_rows)
    """units that it is compared with: genes matched for expression"""
    split_by: Literal["group", "item", "gene"] = "item"
    """what training and held-out rows share nothing of"""
    column: str | None = None
    """of labels: the column whose value it is, `label` and `group` for those of the run itself; it cannot confound its own values"""

    def item_truth(self, n_items: int) -> npt.NDArray[np.int8]:
        """int8 [items]: 1 has it, 0 lacks it, -1 cannot tell."""
        truth = np.full(n_items, UNCOUNTED, np.int8)
        truth[self.others] = NEGATIVE
        truth[self.items] = POSITIVE
        return truth

    def unit_truth(self, n_units: int) -> npt.NDArray[np.int8]:
        """Likewise, of units: int8 [units]."""
        truth = np.full(n_units, UNCOUNTED, np.int8)
        truth[self.other_units] = NEGATIVE
        truth[self.units] = POSITIVE
        return truth

    def token_truth(
        self, item: Ints, position: npt.NDArray[np.integer], unit: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int8]:
        """int8 [T]: 1 within, 0 outside, -1 does not count: special tokens, items that cannot tell.

        item: [T], rows of the run's items. position: as stored: residue r, 0-based, is at position r + 1. unit: -1 counts for nothing.
        """
        if len(self.units):
            table = self.unit_truth(int(max(unit.max(initial=0), self.units[-1], self.other_units.max(initial=0))) + 1)
            return np.where(unit >= 0, table[np.maximum(unit, 0)], UNCOUNTED).astype(np.int8)
        known = self.item_truth(
            int(max(item.max(initial=0), self.items.max(initial=0), self.others.max(initial=0))) + 1
        )
        truth = known[item]
        if self.spans is not None:
            residue = position.astype(np.int64) - 1
            has = self.spans.contain(item, residue)
            lacks = ~has if self.other_spans is None else self.other_spans.contain(item, residue) & ~has
            truth = np.where(
                truth == UNCOUNTED, UNCOUNTED, np.where(has, POSITIVE, np.where(lacks, NEGATIVE, UNCOUNTED))
            )
        return np.where(unit >= 0, truth, UNCOUNTED).astype(np.int8)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A concept without a vector, and why."""

    id: str
    kind: Kind
    name: str
    why: str


@dataclass(frozen=True, eq=False)
class NamedConcepts:
    """The concepts of a run, and which items and units are held out for them. Reads like a list of `Concept`."""

    concepts: tuple[Concept, ...]
    left_out: tuple[LeftOut, ...]
    group: Ints
    """[items], number of each item's group; an item without one has a number of its own"""
    heldout: Bools
    """[items], those of `prepare`'s split"""
    heldout_alone: Bools
    """[items], a split of single items, for concepts that are in too few groups for the other (`split_by` item)"""
    heldout_units: Bools
    """[units], for gene sets"""

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.concepts)

    def __len__(self) -> int:
        return len(self.concepts)

    def __getitem__(self, number: int) -> Concept:
        return self.concepts[number]

    def heldout_of(self, concept: Concept) -> Bools:
        """Which items the concept's vector is scored on and not fitted on: bool [items]. Gene sets: see `heldout_units` too."""
        return self.heldout_alone if concept.split_by == "item" else self.heldout

    def groups_of(self, concept: Concept) -> Ints:
        """What counts once: int64 [items], the group, or the item where the split is by item."""
        return np.arange(len(self.group)) if concept.split_by == "item" else self.group
