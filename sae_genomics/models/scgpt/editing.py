"""scGPT, stopped at a hook and going on from it. The layers before the hook are computed once, whatever is edited there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.models.editing import Paused, Predictions, deepest_layer, kept_at, not_half, unheard
from sae_genomics.models.scgpt.network import Block, ScgptNetwork
from sae_genomics.models.sequences import Listener
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.models.scgpt.model import Scgpt

GENE_VECTORS = "gene_vectors"


def pause(model: Scgpt, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None) -> Paused:
    """See `FoundationModel.pause`."""
    network = model.network
    with torch.no_grad():  # inference mode would leave tensors that no later backward pass may use
        sequences = model.sequences(batch)
        gene_vectors, x = network.embed(*model.seen(batch, hidden))
        x = network.encode(x, sequences, range(layer), unheard)
        block: Block = network.blocks[layer]  # type: ignore[assignment]
        stream: Tensor | None = None
        if hook == "resid_post":
            x = block(x, sequences, layer, unheard)
        else:
            stream, x = block.attend(x, sequences)
            if hook == "mlp_out":
                stream, x = block.mlp(stream, x)
    return Paused(batch, layer, hook, x, hidden, stream, {GENE_VECTORS: gene_vectors})


def resume(
    model: Scgpt, paused: Paused, activations: Tensor | None, layers: Sequence[int], predict: bool
) -> Predictions:
    """See `FoundationModel.resume`."""
    network = model.network
    found, listen = kept_at(paused.hook, layers)
    x = paused.activations if activations is None else activations.to(paused.activations)
    x = _rest_of_layer(network, paused, x, listen)
    sequences = model.sequences(paused.batch)
    last = deepest_layer(paused, layers, predict, model.info.n_layers)
    x = network.encode(x, sequences, range(paused.layer + 1, last + 1), listen)
    if not predict:
        return Predictions(None, None, None, found)
    embedding, token, from_item = network.decode(x, paused.per_token[GENE_VECTORS], sequences)
    return Predictions(not_half(token), None if from_item is None else not_half(from_item), not_half(embedding), found)


def _rest_of_layer(network: ScgptNetwork, paused: Paused, x: Tensor, listen: Listener) -> Tensor:
    """The paused layer's output, its last norm included. x: what it has at the hook."""
    if paused.stream is None:
        return x
    block: Block = network.blocks[paused.layer]  # type: ignore[assignment]
    go_on = block.after_attention if paused.hook == "attn_out" else block.after_mlp
    return go_on(paused.stream, x, paused.layer, listen)
