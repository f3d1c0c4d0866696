"""`activations.tokens_per_cell`: which of an item's tokens are stored."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from sae_genomics.tokens import Tokens

_PURPOSE = zlib.crc32(b"activations.tokens_per_cell")
SAMPLED_BY = ("position", "token")  # the second: files of before, see `stored_rows`


def stored_rows(
    tokens: Tokens, per_item: int | None, seed: int, by_token: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Rows to store, ascending: all special tokens and at most `per_item` others of each item. None: all of them.

    Every token gets a random number from (seed, the item's row in the input, its position), and the smallest stay. So
    the choice is the same in any shard, batch and window, and a larger `per_item` only adds to a smaller one.

    by_token: bool [T], rows whose number comes from the vocabulary id in place of the position. So were shards sampled by earlier
        versions, whose files had no positions; what belongs to such a shard must go on with it.

    Returns int64 [stored].
    """
    rows = np.arange(len(tokens)) if tokens.stored is None else np.flatnonzero(tokens.stored)
    if per_item is None:
        return rows
    is_special = tokens.special[rows]
    special, rows = rows[is_special], rows[~is_special]
    key = tokens.position[rows]
    if by_token is not None:
        key = np.where(by_token[rows], tokens.token[rows], key)
    item = tokens.item[rows]
    order = np.lexsort((_random_numbers(item, key, seed), item))
    begins = np.flatnonzero(np.diff(item[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    return np.sort(np.concatenate([special, rows[order[rank < per_item]]]))


def _random_numbers(item: npt.NDArray[np.int64], key: npt.NDArray[np.int32], seed: int) -> npt.NDArray[np.uint64]:
    start = _mix(np.full(1, (seed << 32) ^ _PURPOSE, dtype=np.uint64))
    return _mix(_mix(start ^ item.astype(np.uint64)) ^ key.astype(np.uint64))


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64 (Steele, Lea and Flood, 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
