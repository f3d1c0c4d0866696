"""ESM2, stopped at a hook and going on from it. The layers before the hook are computed once, whatever is edited there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.models.editing import Paused, Predictions, deepest_layer, kept_at, not_half, unheard
from sae_genomics.models.esm2.packed import Block, PackedEsm
from sae_genomics.models.sequences import Listener, mean_over
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.models.esm2.model import Esm2


def pause(model: Esm2, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
    """See `FoundationModel.pause`."""
    network = model.network
    with torch.no_grad():  # inference mode would leave tensors that no later backward pass may use
        seen = model.seen(batch, hidden)
        sequences = model.sequences(batch)
        angles = network.angles(sequences)
        x = network.encode(network.embed(seen, sequences), sequences, angles, range(layer), unheard)
        block: Block = network.blocks[layer]  # type: ignore[assignment]
        if hook == "resid_post":
            return Paused(batch, layer, hook, block(x, sequences, angles, layer, unheard), hidden)
        attention = block.attend(x, sequences, angles)
        if hook == "attn_out":
            return Paused(batch, layer, hook, attention, hidden, x)
        x = x + attention
        return Paused(batch, layer, hook, block.mlp(x), hidden, x)


def resume(
    model: Esm2, paused: Paused, activations: Tensor | None, layers: Sequence[int], predict: bool
) -> Predictions:
    """See `FoundationModel.resume`."""
    network = model.network
    found, listen = kept_at(paused.hook, layers)
    x = paused.activations if activations is None else activations.to(paused.activations)
    x = _rest_of_layer(network, paused, x, listen)
    sequences = model.sequences(paused.batch)
    last = deepest_layer(paused, layers, predict, model.info.n_layers)
    x = network.encode(x, sequences, network.angles(sequences), range(paused.layer + 1, last + 1), listen)
    if not predict:
        return Predictions(None, None, None, found)
    x = network.final_norm(x)
    token = None if model.why_no_loss else not_half(network.lm_head(x))
    return Predictions(token, None, mean_over(not_half(x), sequences, ~paused.batch.special), found)


def _rest_of_layer(network: PackedEsm, paused: Paused, x: Tensor, listen: Listener) -> Tensor:
    """The paused layer's output. x: what it has at the hook."""
    if paused.stream is None:
        return x
    block: Block = network.blocks[paused.layer]  # type: ignore[assignment]
    x = paused.stream + x
    if paused.hook == "attn_out":
        x = x + listen("mlp_out", paused.layer, block.mlp(x))
    return listen("resid_post", paused.layer, x)
