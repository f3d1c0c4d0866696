"""A language model, stopped at a hook and going on from it. The layers before the hook are computed once, whatever is edited there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.errors import UserError
from sae_genomics.models.editing import Paused, Predictions, deepest_layer, kept_at, not_half
from sae_genomics.models.huggingface.current import Pass
from sae_genomics.models.sequences import Listener, Sequences, mean_over
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.models.huggingface.model import HuggingFace

ENTERING = "entering"  # in `Paused.per_token`: what enters the paused layer, [T, d_model]
MOST_LOGIT_BYTES = 4 << 30


def pause(
    model: HuggingFace, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None
) -> Paused:
    """See `FoundationModel.pause`."""
    model.refuse_unknown_hook(hook)
    with (
        torch.inference_mode(False),
        torch.no_grad(),
    ):  # inference mode would leave tensors that no later backward pass may use
        found, listen = kept_at(hook, [layer])
        one = Pass(model.sequences(batch), model.network.packed, listen, last=layer, input_wanted=layer)
        model.network(model.on_device(batch.token), one)
        kept = {} if hook == "resid_post" else {ENTERING: _there(one.input_found)}
        return Paused(batch, layer, hook, found[layer], hidden, per_token=kept)


def resume(
    model: HuggingFace, paused: Paused, activations: Tensor | None, layers: Sequence[int], predict: bool
) -> Predictions:
    """See `FoundationModel.resume`."""
    network, batch = model.network, paused.batch
    last = deepest_layer(paused, layers, predict, model.info.n_layers)
    if predict:
        refuse_too_many_logits(len(batch), model.n_logits)
    found, keep = kept_at(paused.hook, layers)
    x = paused.activations if activations is None else activations.to(paused.activations)
    sequences = model.sequences(batch)
    one = Pass(sequences, network.packed, _putting(x, paused, keep), first=paused.layer, last=last)
    if paused.hook == "resid_post":
        one.leaving = x
    else:
        one.entering = paused.per_token[ENTERING]
    read = network(model.on_device(batch.token), one)
    if not predict:
        return Predictions(None, None, None, found)
    token = None if model.why_no_loss else _logits(model, read, sequences)
    return Predictions(token, None, mean_over(not_half(read), sequences, ~batch.special), found)


def refuse_too_many_logits(n_tokens: int, n_logits: int) -> None:
    """Raises UserError where predictions of so many tokens would take more memory than is sensible."""
    if n_tokens * n_logits * 4 > MOST_LOGIT_BYTES:
        raise UserError(
            f"predictions of {n_tokens:,} tokens over {n_logits:,} word pieces take {n_tokens * n_logits * 4 / 1e9:.0f} GB; set "
            f"activations.batch_tokens to at most {MOST_LOGIT_BYTES // 4 // n_logits:,} (and data.max_tokens, where documents are longer), "
            "or causal.enabled to false"
        )


def _putting(x: Tensor, paused: Paused, keep: Listener) -> Listener:
    """A listener that puts activations where the pass was paused, and keeps those of later layers."""

    def listen(hook: str, layer: int, rows: Tensor) -> Tensor:
        return x if (hook, layer) == (paused.hook, paused.layer) else keep(hook, layer, rows)

    return listen


def _logits(model: HuggingFace, read: Tensor, sequences: Sequences) -> Tensor:
    """[T, vocabulary] float32: row t predicts token t from the rows before it; zeros at a sequence's first row."""
    before = torch.arange(-1, len(read) - 1, device=read.device).clamp(min=0)
    logits = not_half(model.network.head(read[before], sequences))
    return logits.masked_fill((sequences.place == 0)[:, None], 0.0)


def _there(x: Tensor | None) -> Tensor:
    assert x is not None
    return x
