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

from sae_genomics.models.block_model import Block
from sae_genomics.models.hidden_tokens import TokenNetwork
from sae_genomics.models.packed_attention import PackedAttention, linear
from sae_genomics.models.sequences import Sequences

if TYPE_CHECKING:
    from transformers import BertForMaskedLM


class BertBlock(Block):
    """One layer, with a norm behind each sum."""

    def __init__(self, layer: Any, n_heads: int):
        super().__init__()
        own, output = layer.attention.self, layer.attention.output
        self.attention = PackedAttention(own.query, own.key, own.value, output.dense, n_heads)
        self.attention_norm, self.mlp_norm = output.LayerNorm, layer.output.LayerNorm
        self.up, self.down = linear(layer.intermediate.dense), linear(layer.output.dense)
        self.activation = layer.intermediate.intermediate_act_fn

    def attend(self, x: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
        return x, self.attention(x, sequences)

    def mlp(self, stream: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        stream = self.attention_norm(stream + attention)
        return stream, self.down(self.activation(self.up(stream)))

    def output(self, stream: Tensor, mlp: Tensor) -> Tensor:
        return self.mlp_norm(stream + mlp)  # type: ignore[no-any-return]


class PackedBert(TokenNetwork):
    """The network for evaluation. The modules are the given network's own, and its linear layers share their weights."""

    def __init__(self, network: BertForMaskedLM):
        super().__init__()
        self.embeddings = network.bert.embeddings
        self.blocks = nn.ModuleList(
            BertBlock(layer, network.config.num_attention_heads) for layer in network.bert.encoder.layer
        )
        self.head, self.final_norm = network.cls.predictions, nn.Identity()

    def embed(self, token: Tensor, sequences: Sequences) -> Tensor:
        """What enters the first block: norm(gene + kind of sentence + place), where all tokens are of the first kind."""
        table = self.embeddings
        x = table.word_embeddings(token) + table.token_type_embeddings.weight[0]
        return table.LayerNorm(x + table.position_embeddings(sequences.place))  # type: ignore[no-any-return]


def on_device(network: PackedBert, device: torch.device) -> PackedBert:
    """For evaluation there."""
    return network.eval().requires_grad_(False).to(device)
