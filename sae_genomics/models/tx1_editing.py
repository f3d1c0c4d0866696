"""Tahoe-x1, stopped at a hook and going on from it. The layers before the hook are computed once, whatever is edited there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.models.editing import Paused, Predictions, deepest_layer, kept_at, not_half
from sae_genomics.models.tx1_network import Block, Layout, Listener, Tx1Network, heard_at
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.models.tx1 import NativeTx1

GENE_VECTORS = "gene_vectors"


def pause(
    model: NativeTx1, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None
) -> Paused:
    """See `FoundationModel.pause`."""
    network = model.network
    with torch.no_grad():  # inference mode would leave tensors that no later backward pass may use
        layout, gene, value, masked = model.inputs(batch, hidden)
        gene_vectors, x = network.embed(gene, value, layout, masked, model.drug(batch))
        x = network.encode(x, layout, masked, layer)
        found, stream = _up_to(network, x, layout, masked, layer, hook)
    return Paused(batch, layer, hook, found, hidden, stream, {GENE_VECTORS: gene_vectors})


def _up_to(
    network: Tx1Network, x: Tensor, layout: Layout, masked: Tensor | None, layer: int, hook: str
) -> tuple[Tensor, Tensor | None]:
    """The layer's activations at the hook, and the stream that they are added to. x: what enters the layer."""
    block: Block = network.transformer_encoder.layers[layer]  # type: ignore[assignment]
    hidden = network.hidden_keys(masked)
    if hook == "resid_post":
        return block(x, layout, hidden, heard_at(None, layer)), None
    attention = block.attend(x, layout, hidden)
    if hook == "attn_out":
        return attention, x
    x, mlp = block.to_mlp(block, x, attention)
    return mlp, x


def resume(
    model: NativeTx1, paused: Paused, activations: Tensor | None, layers: Sequence[int], predict: bool
) -> Predictions:
    """See `FoundationModel.resume`."""
    network = model.network
    found, listen = kept_at(paused.hook, layers)
    x = paused.activations if activations is None else activations.to(paused.activations)
    layout, masked = model.layout(paused.batch), model.on_device(paused.hidden)
    x = _rest_of_layer(network, paused, x, listen)
    n_layers = deepest_layer(paused, layers, predict, model.info.n_layers) + 1
    x = network.encode(x, layout, masked, n_layers, listen, first=paused.layer + 1)
    if not predict:
        return Predictions(None, None, None, found)
    embedding, token, from_item = network.decode(x, paused.per_token[GENE_VECTORS], layout)
    return Predictions(not_half(token), None if from_item is None else not_half(from_item), not_half(embedding), found)


def _rest_of_layer(network: Tx1Network, paused: Paused, x: Tensor, listen: Listener) -> Tensor:
    """The paused layer's output. x: what it has at the hook."""
    if paused.stream is None:
        return x
    block: Block = network.transformer_encoder.layers[paused.layer]  # type: ignore[assignment]
    heard = heard_at(listen, paused.layer)
    if paused.hook == "attn_out":
        return block.after_attention(paused.stream, x, heard)
    return block.after_mlp(paused.stream, x, heard)
