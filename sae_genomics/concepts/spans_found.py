"""Windows of high scores in items, against annotated spans: plain arrays, all items of all concepts at once.

A stretch is one item as one concept sees it. Stretches stand one after the other; `ptr` says where each begins. Item i has spans
that cover `mask`; m_i is how many there are. The prediction is m_i windows of w_i tokens: the one with the highest mean score first,
then the next best that does not overlap it, and so on. With P the tokens in windows and S those in spans,

    IoU = |P and S| / |P or S|.

The ceiling is the same procedure on the spans themselves: a window that is too long or too short cannot reach 1. The floor is
m_i random windows of w_i tokens that do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stretches:
    """Items as concepts see them.

    ptr: int64 [stretches + 1]. score: float64 [T]. mask: bool [T], in a span. window: int64 [stretches], tokens of a window.
    n_spans: int64 [stretches], spans that are wanted.
    """

    ptr: Int64
    score: Float64
    mask: Bool
    window: Int64
    n_spans: Int64

    @property
    def lengths(self) -> Int64:
        return np.diff(self.ptr)

    @property
    def widths(self) -> Int64:
        """Tokens of a window: never more than the item has."""
        return np.minimum(self.window, self.lengths)

    @property
    def wanted(self) -> Int64:
        """Windows of each stretch: as many as spans, or as have room."""
        return np.minimum(self.n_spans, self.lengths // np.maximum(self.widths, 1))

    @property
    def of_token(self) -> Int64:
        """Which stretch each token is of."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


@dataclass(frozen=True)
class Found:
    """Chosen windows: int64 [n] each. stretch: which. start: token, counted over all stretches. stop: one past the last."""

    stretch: Int64
    start: Int64
    stop: Int64

    def cover(self, n_tokens: int) -> Bool:
        """Tokens in a window: bool [n_tokens]."""
        change = np.zeros(n_tokens + 1, np.int64)
        np.add.at(change, self.start, 1)
        np.add.at(change, self.stop, -1)
        return np.cumsum(change)[:-1] > 0


def runs(mask: Bool, ptr: Int64) -> tuple[Int64, Int64, Int64]:
    """Unbroken runs of True within stretches: which stretch, start, stop: int64 [runs] each."""
    edge = np.zeros(len(mask) + 1, bool)
    edge[ptr] = True
    before = np.append(False, mask[:-1]) & ~edge[:-1]
    after = np.append(mask[1:], False) & ~edge[1:]
    start, stop = np.flatnonzero(mask & ~before), np.flatnonzero(mask & ~after) + 1
    return np.searchsorted(ptr, start, side="right") - 1, start, stop


def window_means(values: npt.NDArray[np.floating], at: Stretches) -> Float64:
    """Mean of the window that begins at each token: float64 [T]; -inf where it would not fit into the item."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    width = at.widths[at.of_token]
    start = np.arange(len(values))
    fits = start + width <= at.ptr[1:][at.of_token]
    stop = np.where(fits, start + width, start)
    return np.where(fits, (total[stop] - total[start]) / np.maximum(width, 1), -np.inf)


def best_windows(values: npt.NDArray[np.floating], at: Stretches) -> Found:
    """The chosen windows, the best first. values: float [T], in place of the scores."""
    means, found = window_means(values, at), []
    wanted, width, first = at.wanted, at.widths, at.ptr[:-1]
    left = np.flatnonzero(wanted > 0)
    for number in range(
        int(wanted.max(initial=0))
    ):  # over the spans of one item: few, whatever number of items there is
        left = left[wanted[left] > number]
        start = _argmax(means, at, left)
        can = np.isfinite(means[start])
        left, start = left[can], start[can]
        found.append((left, start, start + width[left]))
        low = np.maximum(start - width[left] + 1, first[left])
        high = np.minimum(start + width[left], at.ptr[1:][left])
        means[_ranges(low, high)] = -np.inf
    if not found:
        empty = np.zeros(0, np.int64)
        return Found(empty, empty, empty)
    stretch, start, stop = (np.concatenate(part) for part in zip(*found, strict=True))
    return Found(stretch, start, stop)


def _argmax(values: Float64, at: Stretches, stretches: Int64) -> Int64:
    """Of each of these stretches the first token with the largest value."""
    if not len(stretches):
        return stretches
    rows = _ranges(at.ptr[stretches], at.ptr[stretches + 1])
    begins = np.concatenate([[0], np.cumsum(at.lengths[stretches])[:-1]])
    part = values[rows]
    largest = np.maximum.reduceat(part, begins)
    is_largest = np.flatnonzero(part == np.repeat(largest, at.lengths[stretches]))
    which = np.searchsorted(begins, is_largest, side="right") - 1
    firsts = np.unique(which, return_index=True)[1]
    return rows[is_largest[firsts]]


def _ranges(start: Int64, stop: Int64) -> Int64:
    """start[0] .. stop[0] - 1, start[1] .. stop[1] - 1, one after the other."""
    length = stop - start
    ends = np.cumsum(length)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(start - (ends - length), length)


def ious(found: Found, at: Stretches) -> Float64:
    """IoU of each stretch: float64 [stretches]; NaN without a span. Windows do not overlap."""
    covered = np.concatenate([[0], np.cumsum(at.mask)])
    n = len(at.lengths)
    shared = np.bincount(found.stretch, covered[found.stop] - covered[found.start], n)
    in_windows = np.bincount(found.stretch, found.stop - found.start, n)
    in_spans = covered[at.ptr[1:]] - covered[at.ptr[:-1]]
    return np.where(in_spans > 0, shared / np.maximum(in_windows + in_spans - shared, 1), np.nan)


def ceilings(at: Stretches) -> Float64:
    """IoU of windows that are put where the spans are: float64 [stretches]."""
    return ious(best_windows(_centred(at), at), at)


def _centred(at: Stretches) -> Float64:
    """1 in spans, a little more in a span's middle: of windows that hold a whole span the one around it is the best."""
    stretch, start, stop = runs(at.mask, at.ptr)
    value = at.mask.astype(np.float64)
    value[(start + stop - 1) // 2] += 1e-6
    # A window that is longer than the span would take it at its edge: the tokens around a span count the less the farther they are.
    rows = np.arange(len(value))
    after = np.searchsorted(start, rows, side="right")
    far = np.full(len(value), np.iinfo(np.int64).max // 2)
    if len(start):
        left, right = np.maximum(after - 1, 0), np.minimum(after, len(start) - 1)
        same_left = (after > 0) & (stretch[left] == at.of_token)
        same_right = (after < len(start)) & (stretch[right] == at.of_token)
        far = np.minimum(
            np.where(same_left, rows - stop[left] + 1, far), np.where(same_right, start[right] - rows, far)
        )
    return np.where(at.mask, value, -1e-9 * np.minimum(far, 10**5))


def random_ious(at: Stretches, draws: int, random: np.random.Generator) -> Float64:
    """IoU of random windows of the same number and length: float64 [stretches, draws]."""
    n, wanted, width = len(at.lengths), at.wanted, at.widths
    most = int(wanted.max(initial=0))
    room = at.lengths - wanted * width
    gaps = np.sort(np.floor(random.random((n, draws, most)) * (room + 1)[:, None, None]).astype(np.int64), axis=2)
    # Of an item with fewer windows the first ones count; sorting all `most` would push them to the left, so they are drawn apart.
    fewer = wanted < most
    if fewer.any():
        drawn = np.floor(random.random((int(fewer.sum()), draws, most)) * (room[fewer] + 1)[:, None, None])
        drawn[np.broadcast_to(np.arange(most) >= wanted[fewer][:, None, None], drawn.shape)] = np.inf
        drawn.sort(axis=2)
        gaps[fewer] = np.where(np.isfinite(drawn), drawn, 0).astype(np.int64)
    used = np.arange(most) < wanted[:, None, None]
    start = at.ptr[:-1][:, None, None] + gaps + np.arange(most) * width[:, None, None]
    start = np.where(used, start, 0)
    covered = np.concatenate([[0], np.cumsum(at.mask)])
    stop = np.where(used, start + width[:, None, None], 0)
    shared = (covered[stop] - covered[start]).sum(axis=2)
    in_spans = (covered[at.ptr[1:]] - covered[at.ptr[:-1]])[:, None]
    union = (wanted * width)[:, None] + in_spans - shared
    return np.where(in_spans > 0, shared / np.maximum(union, 1), np.nan)


def pointing_hits(at: Stretches) -> Float64:
    """1 where a stretch's strongest token lies in a span, else 0: float64 [stretches]; NaN without tokens or spans."""
    full = np.flatnonzero(at.lengths > 0)
    hit = np.full(len(at.lengths), np.nan)
    hit[full] = at.mask[_argmax(at.score, at, full)]
    return np.where(prevalence(at) > 0, hit, np.nan)


def prevalence(at: Stretches) -> Float64:
    """Share of each stretch's tokens in spans: float64 [stretches]."""
    covered = np.concatenate([[0], np.cumsum(at.mask)])
    return (covered[at.ptr[1:]] - covered[at.ptr[:-1]]) / np.maximum(at.lengths, 1)


def average_precision(at: Stretches) -> Float64:
    """Mean over a stretch's tokens in spans of the precision at their rank: float64 [stretches]; equal scores count together.

    NaN without a span.
    """
    order = np.lexsort((-at.score, at.of_token))
    stretch, score, hit = at.of_token[order], at.score[order], at.mask[order].astype(np.float64)
    rank = np.arange(len(order)) - at.ptr[stretch] + 1
    total = np.concatenate([[0.0], np.cumsum(hit)])
    so_far = total[1:] - total[at.ptr[stretch]]
    last = np.ones(len(order), bool)  # of equal scores: there recall is what the threshold gives
    last[:-1] = (stretch[1:] != stretch[:-1]) | (score[1:] != score[:-1])
    ends = np.flatnonzero(last)
    of_end = np.searchsorted(ends, np.arange(len(order)))
    precision = (so_far / rank)[ends][of_end] if len(order) else hit
    n_hits = total[at.ptr[1:]] - total[at.ptr[:-1]]
    sums = np.bincount(stretch, hit * precision, len(at.lengths))
    return np.where(n_hits > 0, sums / np.maximum(n_hits, 1), np.nan)
