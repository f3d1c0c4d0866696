"""How proteins that are longer than a model reads at once are cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Windows(NamedTuple):
    """Arrays int64 [windows]; residues count from 0, half-open. kept_start, kept_stop: the residues that are taken from the window."""

    item: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    kept_start: npt.NDArray[np.int64]
    kept_stop: npt.NDArray[np.int64]


def windows_of(lengths: npt.NDArray[np.int64], most: int, overlap: int) -> Windows:
    """Cut sequences into windows of at most `most` residues, of which consecutive ones share `overlap`.

    lengths: [items], each at least 1. overlap: less than `most`. Window w of an item begins at w (most - overlap); the border between
    what is kept of two windows is the middle of what they share.
    """
    if not 0 <= overlap < most:
        raise ValueError(f"windows of {most} cannot overlap by {overlap}")
    lengths = np.asarray(lengths, dtype=np.int64)
    step = most - overlap
    n = 1 + np.maximum(-(-(lengths - most) // step), 0)
    item = np.repeat(np.arange(len(lengths)), n)
    within = np.arange(len(item)) - np.repeat(np.cumsum(n) - n, n)
    start = within * step
    stop = np.minimum(start + most, lengths[item])
    is_first, is_last = within == 0, within == n[item] - 1
    kept_start = np.where(is_first, 0, start + overlap // 2)
    kept_stop = np.where(is_last, stop, start + step + overlap // 2)
    return Windows(item, start, stop, kept_start, kept_stop)
