"""Geneformer's encoder on packed rows: the modules and weights of transformers' BertForMaskedLM, without any padding in linear layers and norms.

A batch is [T, d_model] rows of all sequences, one after the other. Norms come after the sums. Each block is

    attention = out(softmax(q k^T / sqrt(d_head)) v),   q, k, v = qkv(x)
    x = norm(x + attention)
    mlp = down(act(up(x)))
    x = norm(x + mlp)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sae_genomics.models.hidden_tokens import TokenNetwork
from sae_genomics.models.packed_attention import PackedAttention, linear
from sae_genomics.models.sequences import Listener, Sequences

if TYPE_CHECKING:
    from transformers import BertForMaskedLM


class Block(nn.Module):
    """One layer."""

    def __init__(self, layer: Any, n_heads: int):
        super().__init__()
        own, output = layer.attention.self, layer.attention.output
        self.attention = PackedAttention(own.query, own.key, own.value, output.dense, n_heads)
        self.attention_norm, self.mlp_norm = output.LayerNorm, layer.output.LayerNorm
        self.up, self.down = linear(layer.intermediate.dense), linear(layer.output.dense)
        self.activation = layer.intermediate.intermediate_act_fn

    def forward(self, x: Tensor, sequences: Sequences, layer: int, listen: Listener) -> Tensor:
        """x: [T, d_model]; returns the block's output."""
        x = self.attention_norm(x + listen("attn_out", layer, self.attention(x, sequences)))
        x = self.mlp_norm(x + listen("mlp_out", layer, self.mlp(x)))
        return listen("resid_post", layer, x)

    def mlp(self, x: Tensor) -> Tensor:
        """What the MLP adds to the stream, before the norm."""
        return self.down(self.activation(self.up(x)))  # type: ignore[no-any-return]


class PackedBert(TokenNetwork):
    """The network for evaluation. The modules are the given network's own, and its linear layers share their weights."""

    def __init__(self, network: BertForMaskedLM):
        super().__init__()
        self.embeddings = network.bert.embeddings
        self.blocks = nn.ModuleList(
            Block(layer, network.config.num_attention_heads) for layer in network.bert.encoder.layer
        )
        self.head = network.cls.predictions

    def forward(self, token: Tensor, sequences: Sequences, n_layers: int, listen: Listener) -> Tensor:
        """The output of the first `n_layers` blocks: [T, d_model]. token: int64 [T]."""
        return self.encode(self.embed(token, sequences), sequences, range(n_layers), listen)

    def encode(self, x: Tensor, sequences: Sequences, layers: range, listen: Listener) -> Tensor:
        """The output of some consecutive blocks, given what enters the first of them."""
        for layer in layers:
            x = self.blocks[layer](x, sequences, layer, listen)
        return x

    def embed(self, token: Tensor, sequences: Sequences) -> Tensor:
        """What enters the first block: norm(gene + kind of sentence + place), where all tokens are of the first kind."""
        table = self.embeddings
        x = table.word_embeddings(token) + table.token_type_embeddings.weight[0]
        return table.LayerNorm(x + table.position_embeddings(sequences.place))  # type: ignore[no-any-return]

    def predict(self, x: Tensor) -> Tensor:
        """Scores of all tokens, from outputs of the last block: [n, d_model] -> [n, vocabulary]."""
        return self.head(x)  # type: ignore[no-any-return]


def on_device(network: PackedBert, device: torch.device) -> PackedBert:
    """For evaluation there."""
    return network.eval().requires_grad_(False).to(device)
