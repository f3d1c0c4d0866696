"""What a concept's score says of an item: plain arrays, all concepts of a layer at once.

A concept of items (a label, examples without spans) has the mean score of the item's tokens. A concept of tokens (a span) has the mean
score of the best window: as many tokens as the median of the concept's spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.concepts.vectors import ConceptVector

Floats = npt.NDArray[np.floating]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stacked:
    """The vectors of a layer as arrays. vectors: float32 [concepts, d_model]. intercepts: float32 [concepts].

    window: int64 [concepts], tokens of a window; 0 where the whole item counts.
    """

    vectors: npt.NDArray[np.float32]
    intercepts: npt.NDArray[np.float32]
    window: Int64

    @staticmethod
    def of(vectors: Sequence[ConceptVector], window: Sequence[int] | Int64) -> Stacked:
        """Concepts in their order."""
        return Stacked(
            np.stack([each.vector for each in vectors]).astype(np.float32),
            np.array([each.intercept for each in vectors], np.float32),
            np.asarray(window, np.int64),
        )

    def scores(self, x: Floats) -> npt.NDArray[np.float32]:
        """Every token's score: float32 [T, concepts]. x: [T, d_model]."""
        found: npt.NDArray[np.float32] = np.asarray(x, np.float32) @ self.vectors.T + self.intercepts
        return found


def of_items(scores: Floats, ptr: Int64, window: Int64) -> tuple[npt.NDArray[np.float64], Int64]:
    """Score of every item, float64 [items, concepts], and where its window begins: int64 [items, concepts], counted from the item's
    first token; -1 where the whole item counts. NaN and -1 for an item without tokens.

    scores: [T, concepts], rows of items one after the other. ptr: int64 [items + 1].
    """
    n_items, n_concepts = len(ptr) - 1, scores.shape[1]
    value, start = np.full((n_items, n_concepts), np.nan), np.full((n_items, n_concepts), -1, np.int64)
    full = np.flatnonzero(np.diff(ptr) > 0)
    if not len(full) or not n_concepts:
        return value, start
    whole, of_tokens = np.flatnonzero(window == 0), np.flatnonzero(window > 0)
    begins, lengths = ptr[full], np.diff(ptr)[full]
    if len(whole):
        value[np.ix_(full, whole)] = (
            np.add.reduceat(scores[:, whole], begins, axis=0, dtype=np.float64) / lengths[:, None]
        )
    if len(of_tokens):
        means = window_means(scores[:, of_tokens], ptr, window[of_tokens])
        best = np.maximum.reduceat(means, begins, axis=0)
        value[np.ix_(full, of_tokens)] = best
        is_best = means == np.repeat(best, lengths, axis=0)
        row = np.arange(len(scores))[:, None]
        first = np.minimum.reduceat(np.where(is_best, row, len(scores)), begins, axis=0)
        start[np.ix_(full, of_tokens)] = first - begins[:, None]
    return value, start


def window_means(scores: Floats, ptr: Int64, window: Int64) -> npt.NDArray[np.float64]:
    """Mean score of the window that begins at each token: float64 [T, concepts]; -inf where it does not fit. An item that is shorter
    than the window is one window."""
    n = len(scores)
    total = np.zeros((n + 1, scores.shape[1]))
    np.cumsum(scores, axis=0, dtype=np.float64, out=total[1:])
    of_token = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    width = np.minimum(window[None, :], np.diff(ptr)[of_token][:, None])
    row = np.arange(n)[:, None]
    fits = row + width <= ptr[1:][of_token][:, None]
    stop = np.where(fits, row + width, row)
    sums = np.take_along_axis(total, stop, axis=0) - total[:-1]
    return np.where(fits, sums / np.maximum(width, 1), -np.inf)
