"""Models of blocks that add attention and then an MLP to a stream. They can be stopped at a hook, and go on from there.

A family gives the three steps of its block, what enters the first block, and what is predicted from the last one's output.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sae_genomics.models.editing import Paused, Predictions, deepest_layer, kept_at, unheard
from sae_genomics.models.packed_model import PackedModel
from sae_genomics.models.sequences import Listener, Sequences
from sae_genomics.tokens import Tokens


class Block(nn.Module):
    """One layer, on packed rows: all tensors are [T, d_model]."""

    @abstractmethod
    def attend(self, x: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """The stream, and what attention adds to it. x: the block's input."""

    @abstractmethod
    def mlp(self, stream: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """The stream with attention's part, and what the MLP adds to it."""

    @abstractmethod
    def output(self, stream: Tensor, mlp: Tensor) -> Tensor:
        """The stream with the MLP's part."""

    def forward(self, x: Tensor, sequences: Sequences, layer: int, listen: Listener) -> Tensor:
        """The block's output. x: its input."""
        stream, x = self.attend(x, sequences)
        return self.go_on("attn_out", stream, listen("attn_out", layer, x), layer, listen)

    def go_on(self, hook: str, stream: Tensor, x: Tensor, layer: int, listen: Listener) -> Tensor:
        """The block's output, of what it has at `attn_out` or `mlp_out` (x, which is added to the stream)."""
        if hook == "attn_out":
            stream, x = self.mlp(stream, x)
            x = listen("mlp_out", layer, x)
        return listen("resid_post", layer, self.output(stream, x))


class BlockNetwork(nn.Module):
    """A network of such blocks, for evaluation."""

    blocks: nn.ModuleList

    def encode(self, x: Tensor, sequences: Sequences, layers: range, listen: Listener) -> Tensor:
        """The output of some consecutive blocks, given what enters the first of them."""
        for layer in layers:
            x = self.blocks[layer](x, sequences, layer, listen)
        return x


class BlockModel(PackedModel):
    """A loaded model of such a network. The layers before a hook are computed once, whatever is edited there."""

    network: BlockNetwork

    @abstractmethod
    def embed(
        self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None, sequences: Sequences
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What enters the first block, and what else `decode` needs of each token (`Paused.per_token`). hidden: as for `pause`."""

    @abstractmethod
    def decode(self, x: Tensor, paused: Paused, sequences: Sequences) -> Predictions:
        """What the model predicts from the last block's output."""

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        with torch.no_grad():  # inference mode would leave tensors that no later backward pass may use
            sequences = self.sequences(batch)
            x, per_token = self.embed(batch, hidden, sequences)
            x = self.network.encode(x, sequences, range(layer), unheard)
            stream: Tensor | None = None
            if hook == "resid_post":
                x = self.network.encode(x, sequences, range(layer, layer + 1), unheard)
            else:
                block: Block = self.network.blocks[layer]  # type: ignore[assignment]
                stream, x = block.attend(x, sequences)
                if hook == "mlp_out":
                    stream, x = block.mlp(stream, x)
        return Paused(batch, layer, hook, x, hidden, stream, per_token)

    def resume(
        self, paused: Paused, activations: Tensor | None = None, *, layers: Sequence[int] = (), predict: bool = True
    ) -> Predictions:
        found, listen = kept_at(paused.hook, layers)
        x = paused.activations if activations is None else activations.to(paused.activations)
        if paused.stream is not None:
            block: Block = self.network.blocks[paused.layer]  # type: ignore[assignment]
            x = block.go_on(paused.hook, paused.stream, x, paused.layer, listen)
        sequences = self.sequences(paused.batch)
        last = deepest_layer(paused, layers, predict, self.info.n_layers)
        x = self.network.encode(x, sequences, range(paused.layer + 1, last + 1), listen)
        predicted = self.decode(x, paused, sequences) if predict else Predictions(None, None, None)
        return replace(predicted, layers=found)
