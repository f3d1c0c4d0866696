"""How a shard's sequences are cut: into windows that fit a buffer, and within a window into batches of like length."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

MAX_PADDING = 0.05
_BATCH_COSTS = (1024, 256, 64, 16, 4, 0)


def cut_windows(lengths: npt.NDArray[np.int64], max_rows: int) -> list[slice]:
    """Consecutive sequences together while their rows are at most `max_rows`; a longer one stands alone.

    lengths: int64 [sequences], rows that each one leaves.
    """
    ends = np.cumsum(lengths)
    windows = []
    start = 0
    while start < len(lengths):
        done = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, done + max_rows, side="right")), start + 1)
        windows.append(slice(start, stop))
        start = stop
    return windows


def cut_pieces(lengths: npt.NDArray[np.int64], max_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Consecutive sequences of at most `max_tokens` tokens together, as `cut_batches` gives them: for models that compute no
    padding."""
    return [np.arange(piece.start, piece.stop) for piece in cut_windows(lengths, max_tokens)]


def cut_batches(lengths: npt.NDArray[np.int64], batch_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Cells in batches of like length, longest first, each of at most `batch_tokens` tokens with its padding.

    A batch costs sequences x longest tokens, and starting one costs something too. The cut is the best one for the largest
    such start cost at which at most `MAX_PADDING` of the computed tokens are padding. A sequence that is longer than
    `batch_tokens` makes a batch by itself.

    lengths: int64 [sequences], tokens of each one that the model reads.
    Returns the indices of the sequences, every one in exactly one batch.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    total = int(lengths.sum())
    cuts = np.zeros(1, dtype=np.int64)
    for batch_cost in _BATCH_COSTS:
        cuts = _cheapest_cuts(ordered, batch_tokens, batch_cost)
        computed = int((np.diff(cuts) * ordered[cuts[:-1]]).sum())
        if computed - total <= MAX_PADDING * computed:
            break
    return [order[start:stop] for start, stop in pairwise(cuts)]


def _cheapest_cuts(ordered: npt.NDArray[np.int64], batch_tokens: int, batch_cost: int) -> npt.NDArray[np.int64]:
    """Where to cut descending lengths so that the sum of sequences x longest + batch_cost is least.

    best[i] = min over j of (j - i) ordered[i] + batch_cost + best[j], from the last sequence back; one vector operation for
    each sequence, no longer than a batch.
    """
    n = len(ordered)
    best = np.zeros(n + 1)
    following = np.zeros(n, dtype=np.int64)
    for start in range(n - 1, -1, -1):
        longest = ordered[start]
        most = min(max(int(batch_tokens // max(longest, 1)), 1), n - start)
        costs = np.arange(1, most + 1) * longest + best[start + 1 : start + 1 + most]
        chosen = int(np.argmin(costs))
        best[start] = costs[chosen] + batch_cost
        following[start] = start + 1 + chosen
    cuts = [0]
    while cuts[-1] < n:
        cuts.append(int(following[cuts[-1]]))
    return np.array(cuts, dtype=np.int64)
