"""What edits change in the predictions of some items, as one array per outcome: `exact.exact_effects`, gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.causal.edits import Edit
from sae_genomics.causal.exact import Clean, Effects, exact_effects
from sae_genomics.causal.statistics import FeatureStatistics
from sae_genomics.progress import stop_point

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Changes:
    """What edits change, 0 where they touch nothing. None where it is not predicted.

    token, from_item: float32 [edits, T]; embedding: float32 [edits, sequences].
    token: change of the value; of a distribution KL(before, after) in nats. embedding: length of the change.
    norm: float64 [edits, sequences], length of all that an edit adds. n_edited: int64 [edits, sequences], tokens that it changes.
    """

    token: Float32 | None
    from_item: Float32 | None
    embedding: Float32 | None
    norm: npt.NDArray[np.float64]
    n_edited: npt.NDArray[np.int64]


def changes(
    clean: Clean,
    edits: Sequence[Edit],
    batch_tokens: int,
    statistics: FeatureStatistics | None = None,
) -> Changes:
    """What each edit changes in all sequences. batch_tokens: of a forward pass at most; a longer sequence is one pass.

    statistics: for edits that need them.
    """
    n_tokens, n_sequences = len(clean.paused.batch), clean.paused.batch.n_items
    predicted, n = clean.predictions, len(edits)
    token = None if predicted.token is None else np.zeros((n, n_tokens), np.float32)
    from_item = None if predicted.from_item is None else np.zeros((n, n_tokens), np.float32)
    embedding = None if predicted.embedding is None else np.zeros((n, n_sequences), np.float32)

    norm, n_edited = np.zeros((n, n_sequences)), np.zeros((n, n_sequences), np.int64)

    def gather(found: Effects) -> None:
        stop_point()
        edit = np.repeat(found.edit, np.diff(found.ptr))
        # KL is never below 0; rounding can give -1e-8
        moved = found.token if found.divergence is None else np.maximum(found.divergence, 0)
        if token is not None and moved is not None:
            token[edit, found.row] = moved
        if from_item is not None and found.from_item is not None:
            from_item[edit, found.row] = found.from_item
        if embedding is not None and found.embedding is not None:
            embedding[found.edit, found.sequence] = np.linalg.norm(found.embedding, axis=1)

        norm[found.edit, found.sequence] = found.norm
        n_edited[found.edit, found.sequence] = found.n_edited

    exact_effects(clean, edits, gather, batch_tokens=batch_tokens, statistics=statistics)
    return Changes(token, from_item, embedding, norm, n_edited)
