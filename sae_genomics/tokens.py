"""Packed tokens: the one type that data, models and the store share.

An item is one input (a cell, a protein). A model reads sequences: an item, or a window of an item that is too long for it. Sequences
stand one after the other, never padded, one row per token.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """What a model reads.

    The windows of one item stand one after the other, and the items in the order in which they were given.
    """

    item: npt.NDArray[np.int64]
    """[T], row of the item in the input."""
    token: npt.NDArray[np.int32]
    """[T], vocabulary id."""
    unit: npt.NDArray[np.int32]
    """[T], row in units.parquet; -1 counts for nothing (special tokens, unknown ones)."""
    position: npt.NDArray[np.int32]
    """[T], position within the item, also where the item is read in windows."""
    weight: npt.NDArray[np.float32]
    """[T], the count for cells (0 for special tokens), 1 otherwise."""
    special: npt.NDArray[np.bool_]
    """[T], `<cls>`, `<eos>`, `<drug>`: anywhere in a sequence."""
    item_ptr: npt.NDArray[np.int64]
    """[sequences + 1]; the rows of sequence s are item_ptr[s] to item_ptr[s + 1]."""
    per_token: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Arrays [T] that only one model family reads, such as Tahoe-x1's `value`."""
    per_item: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Arrays [sequences] that only one model family reads, such as Tahoe-x1's `drug`."""
    stored: npt.NDArray[np.bool_] | None = None
    """[T], rows that may be stored. Where windows overlap, each token is stored from one of them. None: every row."""

    @property
    def lengths(self) -> Int64:
        """Tokens of each sequence, special ones included: int64 [sequences]."""
        return np.diff(self.item_ptr)

    @property
    def n_items(self) -> int:
        """Sequences: items, or windows of long ones."""
        return len(self.item_ptr) - 1

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """[T], tokens that are not special; where windows overlap, each token of an item once."""
        usual = ~self.special
        return usual if self.stored is None else usual & self.stored

    def __len__(self) -> int:
        return int(self.item_ptr[-1])

    def rows_of(self, sequences: npt.ArrayLike) -> Int64:
        """The rows of the chosen sequences, one sequence after the other: int64. sequences: int64 [n]."""
        chosen = np.asarray(sequences, dtype=np.int64)
        return ranges(self.item_ptr[:-1][chosen], self.lengths[chosen])

    def take(self, sequences: npt.ArrayLike) -> Tokens:
        """The tokens of the chosen sequences, in the chosen order.

        sequences: int64 [n], indices of this object's sequences (not rows of the input). Consecutive ones are not copied.
        """
        chosen = np.asarray(sequences, dtype=np.int64)
        lengths = self.lengths[chosen]
        item_ptr = pointers(lengths)
        rows: slice | Int64
        if len(chosen) and (np.diff(chosen) == 1).all() and chosen[0] >= 0:
            rows = slice(int(self.item_ptr[chosen[0]]), int(self.item_ptr[chosen[-1] + 1]))
        else:
            rows = ranges(self.item_ptr[:-1][chosen], lengths)
        return Tokens(
            **{name: getattr(self, name)[rows] for name in _COLUMNS},
            item_ptr=item_ptr,
            per_token={name: values[rows] for name, values in self.per_token.items()},
            per_item={name: values[chosen] for name, values in self.per_item.items()},
            stored=None if self.stored is None else self.stored[rows],
        )

    def without(self, rows: npt.ArrayLike) -> Tokens:
        """The same sequences without some tokens, as if the items lacked them. rows: int [n]. All else stays as it is, values included."""
        kept = np.ones(len(self), dtype=bool)
        kept[np.asarray(rows, dtype=np.int64)] = False
        return Tokens(
            **{name: getattr(self, name)[kept] for name in _COLUMNS},
            item_ptr=np.append(0, np.cumsum(kept))[self.item_ptr].astype(np.int64),
            per_token={name: values[kept] for name, values in self.per_token.items()},
            per_item=self.per_item,
            stored=None if self.stored is None else self.stored[kept],
        )

    def with_values(self, name: str, rows: npt.ArrayLike, values: npt.ArrayLike) -> Tokens:
        """The same tokens with other values at some rows of `per_token[name]`. rows: int [n]. values: [n], or one for all."""
        changed = self.per_token[name].copy()
        changed[np.asarray(rows, dtype=np.int64)] = values
        return replace(self, per_token={**self.per_token, name: changed})

    @staticmethod
    def concatenate(parts: list[Tokens]) -> Tokens:
        """All sequences of all parts, in order. The parts come from one model."""
        first = parts[0]
        masks = [np.ones(len(part), bool) if part.stored is None else part.stored for part in parts]
        return Tokens(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS},
            item_ptr=pointers(np.concatenate([part.lengths for part in parts])),
            per_token={name: np.concatenate([part.per_token[name] for part in parts]) for name in first.per_token},
            per_item={name: np.concatenate([part.per_item[name] for part in parts]) for name in first.per_item},
            stored=None if all(part.stored is None for part in parts) else np.concatenate(masks),
        )


_COLUMNS = ("item", "token", "unit", "position", "weight", "special")


def pointers(lengths: npt.NDArray[np.integer]) -> Int64:
    """Where each of the consecutive parts begins, and where the last one ends: int64 [parts + 1]."""
    edges = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=edges[1:])
    return edges


def ranges(starts: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> Int64:
    """start, start + 1, ..., start + length - 1 of every pair, one after the other: int64 [sum of lengths]."""
    at = pointers(lengths)
    return np.repeat(starts - at[:-1], lengths) + np.arange(at[-1])


def counted_tokens(tokens: Tokens) -> npt.NDArray[np.bool_]:
    """Rows whose predictions count: those of a unit, no special ones, and of overlapping windows those that are stored: bool [T]."""
    return tokens.counted & (tokens.unit >= 0)


def items_in_order(tokens: Tokens) -> tuple[Int64, Int64]:
    """The distinct items, in the tokens' order (int64 [items]), and which of them each row belongs to (int64 [T])."""
    starts = np.ones(len(tokens), dtype=bool)
    starts[1:] = tokens.item[1:] != tokens.item[:-1]
    return tokens.item[starts], np.cumsum(starts) - 1


class Windows(NamedTuple):
    """Cuts of items into windows: int64 arrays, one row per window, half-open ranges of residues counted from 0.

    item: index of the item. start, stop: what the model reads. kept_start, kept_stop: what is stored of it.
    """

    item: Int64
    start: Int64
    stop: Int64
    kept_start: Int64
    kept_stop: Int64


def windows_of(lengths: npt.NDArray[np.integer], most: int, overlap: int) -> Windows:
    """Cut items that are longer than `most` into windows of `most` that overlap by `overlap`; the last one may be shorter.

    lengths: int [items], residues of each item, special tokens not counted.

    Each residue is kept by exactly one window. The border is the middle of the overlap, where both windows have as much context.
    Raises ValueError unless 0 <= overlap < most.
    """
    if not 0 <= overlap < most:
        raise ValueError(f"windows of {most} cannot overlap by {overlap}")
    lengths = np.asarray(lengths, dtype=np.int64)
    step = most - overlap
    counts = 1 + np.maximum(-(-(lengths - most) // step), 0)
    item = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(item)) - np.repeat(pointers(counts)[:-1], counts)
    start = number * step
    stop = np.minimum(start + most, lengths[item])
    is_first, is_last = number == 0, number == counts[item] - 1
    kept_start = np.where(is_first, 0, start + overlap // 2)
    kept_stop = np.where(is_last, lengths[item], start + step + overlap // 2)
    return Windows(item, start, stop, kept_start, kept_stop)
