"""Geneformer, stopped at a hook and going on from it. What is edited at `attn_out` or `mlp_out` still goes through the norm behind the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.models.editing import Paused, Predictions, deepest_layer, kept_at, not_half, unheard
from sae_genomics.models.geneformer.packed import Block, PackedBert
from sae_genomics.models.sequences import Listener, mean_over
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.models.geneformer.model import Geneformer


def pause(
    model: Geneformer, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None
) -> Paused:
    """See `FoundationModel.pause`. The stream of `mlp_out` is what the norm behind attention gives."""
    network = model.network
    with torch.no_grad():  # inference mode would leave tensors that no later backward pass may use
        sequences = model.sequences(batch)
        x = network.encode(network.embed(model.seen(batch, hidden), sequences), sequences, range(layer), unheard)
        block: Block = network.blocks[layer]  # type: ignore[assignment]
        if hook == "resid_post":
            return Paused(batch, layer, hook, block(x, sequences, layer, unheard), hidden)
        attention = block.attention(x, sequences)
        if hook == "attn_out":
            return Paused(batch, layer, hook, attention, hidden, x)
        x = block.attention_norm(x + attention)
        return Paused(batch, layer, hook, block.mlp(x), hidden, x)


def resume(
    model: Geneformer, paused: Paused, activations: Tensor | None, layers: Sequence[int], predict: bool
) -> Predictions:
    """See `FoundationModel.resume`. The cell's embedding is that of <cls>, or, in a model without it, the mean over the genes."""
    network = model.network
    found, listen = kept_at(paused.hook, layers)
    x = paused.activations if activations is None else activations.to(paused.activations)
    x = _rest_of_layer(network, paused, x, listen)
    sequences = model.sequences(paused.batch)
    last = deepest_layer(paused, layers, predict, model.info.n_layers)
    x = network.encode(x, sequences, range(paused.layer + 1, last + 1), listen)
    if not predict:
        return Predictions(None, None, None, found)
    token = None if model.why_no_loss else not_half(network.predict(x))
    return Predictions(token, None, mean_over(not_half(x), sequences, speaks_for_cell(model, paused.batch)), found)


def speaks_for_cell(model: Geneformer, batch: Tokens) -> npt.NDArray[np.bool_]:
    """[T], tokens whose mean is the cell's embedding."""
    return batch.token == model.cls_token if model.cls_token is not None else ~batch.special


def _rest_of_layer(network: PackedBert, paused: Paused, x: Tensor, listen: Listener) -> Tensor:
    """The paused layer's output. x: what it has at the hook."""
    if paused.stream is None:
        return x
    block: Block = network.blocks[paused.layer]  # type: ignore[assignment]
    if paused.hook == "attn_out":
        stream = block.attention_norm(paused.stream + x)
        x = block.mlp_norm(stream + listen("mlp_out", paused.layer, block.mlp(stream)))
    else:
        x = block.mlp_norm(paused.stream + x)
    return listen("resid_post", paused.layer, x)
