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

    @staticmethod
    def joined(parts: Sequence[Changes]) -> Changes:
        """Of the batches one after the other."""

        def joined(arrays: Sequence[Float32 | None]) -> Float32 | None:
            known = [each for each in arrays if each is not None]
            return np.concatenate(known, axis=1) if len(known) == len(arrays) else None

        return Changes(
            joined([part.token for part in parts]),
            joined([part.from_item for part in parts]),
            joined([part.embedding for part in parts]),
            np.concatenate([part.norm for part in parts], axis=1),
            np.concatenate([part.n_edited for part in parts], axis=1),
        )


class Gather:
    """A reducer that puts effects into `Changes`."""

    def __init__(self, clean: Clean, n_edits: int):
        n_tokens, n_sequences = len(clean.paused.batch), clean.paused.batch.n_items
        predicted, n = clean.predictions, n_edits
        self.found = Changes(
            None if predicted.token is None else np.zeros((n, n_tokens), np.float32),
            None if predicted.from_item is None else np.zeros((n, n_tokens), np.float32),
            None if predicted.embedding is None else np.zeros((n, n_sequences), np.float32),
            np.zeros((n, n_sequences)),
            np.zeros((n, n_sequences), np.int64),
        )

    def __call__(self, effects: Effects) -> None:
        stop_point()
        found = self.found
        edit = np.repeat(effects.edit, np.diff(effects.ptr))
        # KL is never below 0; rounding can give -1e-8
        moved = effects.token if effects.divergence is None else np.maximum(effects.divergence, 0)
        if found.token is not None and moved is not None:
            found.token[edit, effects.row] = moved
        if found.from_item is not None and effects.from_item is not None:
            found.from_item[edit, effects.row] = effects.from_item
        if found.embedding is not None and effects.embedding is not None:
            found.embedding[effects.edit, effects.sequence] = np.linalg.norm(effects.embedding, axis=1)
        found.norm[effects.edit, effects.sequence] = effects.norm
        found.n_edited[effects.edit, effects.sequence] = effects.n_edited


def changes(
    clean: Clean,
    edits: Sequence[Edit],
    batch_tokens: int,
    statistics: FeatureStatistics | None = None,
) -> Changes:
    """What each edit changes in all sequences. batch_tokens: of a forward pass at most; a longer sequence is one pass.

    statistics: for edits that need them.
    """
    gather = Gather(clean, len(edits))
    exact_effects(clean, edits, gather, batch_tokens=batch_tokens, statistics=statistics)
    return gather.found
