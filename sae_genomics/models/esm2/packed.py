"""ESM2's encoder on packed rows: the modules and weights of transformers' EsmForMaskedLM, without any padding in linear layers and norms.

A batch is [T, d_model] rows of all sequences, one after the other. Only attention, and what depends on a token's place in its
sequence, needs to know where a sequence begins. Each block is

    attention = out(softmax(R(q) R(k)^T / sqrt(d_head)) v),   q, k, v = qkv(norm(x))       R: rotary positions
    x = x + attention
    mlp = down(gelu(up(norm(x))))
    x = x + mlp
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae_genomics.models.block_model import Block
from sae_genomics.models.esm2.rotary import rotate
from sae_genomics.models.hidden_tokens import TokenNetwork
from sae_genomics.models.packed_attention import PackedAttention, linear
from sae_genomics.models.sequences import Listener, Sequences

if TYPE_CHECKING:
    from transformers import EsmForMaskedLM

MASKED_IN_TRAINING = 0.15 * 0.8  # share of tokens that ESM2's training replaced by <mask>; fixed in transformers too


class Attention(PackedAttention):
    """Every residue of a sequence attends to every residue of it."""

    def __init__(self, attention: Any, n_heads: int):
        own = attention.self
        super().__init__(own.query, own.key, own.value, attention.output.dense, n_heads)

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        """x: [T, d_model]. Without angles of the sequences, positions were added before."""
        qkv = self.qkv(x)
        return self.mix(qkv if sequences.angles is None else rotate(qkv, *sequences.angles, self.n_heads), sequences)


class EsmBlock(Block):
    """One layer, with its norms before attention and MLP."""

    def __init__(self, layer: Any, n_heads: int):
        super().__init__()
        self.attention_norm, self.mlp_norm = layer.attention.LayerNorm, layer.LayerNorm
        self.attention = Attention(layer.attention, n_heads)
        self.up, self.down = linear(layer.intermediate.dense), linear(layer.output.dense)

    def attend(self, x: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
        return x, self.attention(self.attention_norm(x), sequences)

    def mlp(self, stream: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        stream = stream + attention
        return stream, self.down(F.gelu(self.up(self.mlp_norm(stream))))

    def output(self, stream: Tensor, mlp: Tensor) -> Tensor:
        return stream + mlp


class PackedEsm(TokenNetwork):
    """The network for evaluation. The modules are the given network's own, and its linear layers share their weights."""

    def __init__(self, network: EsmForMaskedLM):
        super().__init__()
        esm = network.esm
        self.embeddings = esm.embeddings
        self.inv_freq = None if esm.rotary_embeddings is None else esm.rotary_embeddings.inv_freq.float()
        self.blocks = nn.ModuleList(EsmBlock(layer, network.config.num_attention_heads) for layer in esm.encoder.layer)
        self.final_norm = esm.encoder.emb_layer_norm_after
        self.head = network.lm_head

    def encode(self, x: Tensor, sequences: Sequences, layers: range, listen: Listener) -> Tensor:
        if self.inv_freq is not None and sequences.angles is None:  # they begin anew with each sequence
            table = torch.arange(sequences.longest, device=self.inv_freq.device).float()[:, None] * self.inv_freq
            sequences.angles = table.cos()[sequences.place], table.sin()[sequences.place]
        return super().encode(x, sequences, layers, listen)

    def embed(self, token: Tensor, sequences: Sequences) -> Tensor:
        """What enters the first block. A masked token's vector is zero where the model was trained so, and the others make up for it."""
        table = self.embeddings
        x = table.word_embeddings(token)
        if table.token_dropout:
            masked = token == table.mask_token_id
            x = x.masked_fill(masked[:, None], 0.0)
            n_masked = torch.zeros(sequences.count, device=x.device).index_add(0, sequences.of_token, masked.float())
            share = (n_masked / sequences.lengths)[sequences.of_token, None]
            x = (x * (1 - MASKED_IN_TRAINING) / (1 - share)).to(x.dtype)
        if table.position_embedding_type == "absolute":
            x = x + table.position_embeddings(sequences.place + table.padding_idx + 1)
        return x if table.layer_norm is None else table.layer_norm(x)  # type: ignore[no-any-return]
