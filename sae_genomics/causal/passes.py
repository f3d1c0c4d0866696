"""Forward passes from a hook on, with many edits of the same items in the batch axis.

An edit adds c_t w to the activation of each token t: one number per token and one direction. Ablating, scaling, moving to other tokens and
random directions all have this form. The activation keeps what the SAE does not reconstruct, and TopK is not run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.extraction.cutting import cut_windows
from sae_genomics.activations.extraction.extract import ranges
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.progress import stop_point

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Edits:
    """coefficients: float32 [edits, T], one number per token. directions: float32 [edits, d_model]."""

    coefficients: Float32
    directions: Float32

    def __len__(self) -> int:
        return len(self.directions)

    @staticmethod
    def joined(parts: list[Edits]) -> Edits:
        """All of all parts, in order."""
        return Edits(
            np.concatenate([part.coefficients for part in parts]), np.concatenate([part.directions for part in parts])
        )


@dataclass(frozen=True)
class Changes:
    """What edits change. token, from_item: float32 [edits, T]; embedding: float32 [edits, sequences]. None where it is not predicted.

    token: change of the value; of a distribution KL(before, after) in nats. embedding: length of the change.
    """

    token: Float32 | None
    from_item: Float32 | None
    embedding: Float32 | None


def changes(model: FoundationModel, paused: Paused, edits: Edits, batch_tokens: int) -> Changes:
    """What each edit changes in the predictions of all sequences of `paused`.

    batch_tokens: rows of a forward pass at most; a sequence that is longer is one pass.
    """
    with torch.inference_mode():
        before = _prediction(model, model.resume(paused))
    lengths, n_sequences = paused.batch.lengths, paused.batch.n_items
    shapes = {"token": len(paused.batch), "from_item": len(paused.batch), "embedding": n_sequences}
    found = {
        name: np.zeros((len(edits), shapes[name]), np.float32) for name in shapes if getattr(before, name) is not None
    }
    device = paused.activations.device
    sequence, edit = np.tile(np.arange(n_sequences), len(edits)), np.repeat(np.arange(len(edits)), n_sequences)
    directions = torch.from_numpy(edits.directions).to(device)
    for piece in cut_windows(lengths[sequence], batch_tokens):
        stop_point()
        here, of_edit = sequence[piece], edit[piece]
        rows = ranges(paused.batch.item_ptr[here], lengths[here])
        row_edit = np.repeat(of_edit, lengths[here])
        part = paused.take(here)
        with torch.inference_mode():
            added = torch.from_numpy(edits.coefficients[row_edit, rows]).to(device)[:, None]
            at = torch.from_numpy(row_edit).to(device)
            x = part.activations.float() + added * directions[at]
            after = _prediction(model, model.resume(part, x.to(part.activations.dtype)))
            rows_at, here_at = torch.from_numpy(rows).to(device), torch.from_numpy(here).to(device)
            if before.token is not None and after.token is not None:
                found["token"][row_edit, rows] = _change(model, before.token[rows_at], after.token).cpu().numpy()
            if before.from_item is not None and after.from_item is not None:
                found["from_item"][row_edit, rows] = (after.from_item - before.from_item[rows_at]).cpu().numpy()
            if before.embedding is not None and after.embedding is not None:
                moved = (after.embedding - before.embedding[here_at]).norm(dim=-1)
                found["embedding"][of_edit, here] = moved.cpu().numpy()
    return Changes(found.get("token"), found.get("from_item"), found.get("embedding"))


def _prediction(model: FoundationModel, found: Predictions) -> Predictions:
    """In float32; a distribution as logarithms of probabilities."""
    token = None if found.token is None else found.token.float()
    if token is not None and model.outcome == "distribution":
        token = torch.log_softmax(token, dim=-1)
    from_item = None if found.from_item is None else found.from_item.float()
    return Predictions(token, from_item, None if found.embedding is None else found.embedding.float())


def _change(model: FoundationModel, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    if model.outcome == "distribution":  # rounding can give -1e-8
        return (before.exp() * (before - after)).sum(dim=-1).clamp(min=0)
    return after - before


def predicted_values(model: FoundationModel, paused: Paused) -> Float32 | None:
    """The values that the model predicts without an edit, float32 [T]; None for a distribution."""
    if model.outcome != "value":
        return None
    with torch.inference_mode():
        token = model.resume(paused).token
    return None if token is None else token.float().cpu().numpy()
