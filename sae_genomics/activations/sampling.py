"""`activations.tokens_per_cell`: which of a cell's gene tokens are stored."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from sae_genomics.data.tokenise import Tokens

_PURPOSE = zlib.crc32(b"activations.tokens_per_cell")


def stored_tokens(tokens: Tokens, per_cell: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows to store, ascending: all special tokens and at most `per_cell` gene tokens of each cell.

    Every gene token gets a random number from (seed, the cell's row in the input, its gene), and the smallest stay. So
    the choice is the same in any shard and any batch, and a larger `per_cell` only adds to a smaller one.

    Returns int64 [stored].
    """
    lengths = tokens.lengths
    number = _random_numbers(tokens, seed)
    special = tokens.cell_ptr[:-1, None] + np.arange(tokens.n_special)
    number[special] = 0
    cell = np.repeat(np.arange(tokens.n_cells), lengths)
    order = np.lexsort((number, cell))
    place = np.arange(len(tokens)) - np.repeat(tokens.cell_ptr[:-1], lengths)
    return np.sort(order[place < per_cell + tokens.n_special])


def _random_numbers(tokens: Tokens, seed: int) -> npt.NDArray[np.uint64]:
    """uint64 [T], never 0."""
    start = _mix(np.full(1, (seed << 32) ^ _PURPOSE, dtype=np.uint64))
    mixed = _mix(_mix(start ^ tokens.cell.astype(np.uint64)) ^ tokens.gene.astype(np.uint64))
    return np.maximum(mixed, np.uint64(1))


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64 (Steele, Lea and Flood, 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
