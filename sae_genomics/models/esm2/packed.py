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

    def forward(self, x: Tensor, sequences: Sequences, angles: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x: [T, d_model]. angles: cosine and sine [T, d_head / 2] of each place, or None for positions that were added before."""
        qkv = self.qkv(x)
        return self.mix(qkv if angles is None else rotate(qkv, *angles, self.n_heads), sequences)


class Block(nn.Module):
    def __init__(self, layer: Any, n_heads: int):
        super().__init__()
        self.attention_norm, self.mlp_norm = layer.attention.LayerNorm, layer.LayerNorm
        self.attention = Attention(layer.attention, n_heads)
        self.up, self.down = linear(layer.intermediate.dense), linear(layer.output.dense)

    def forward(
        self, x: Tensor, sequences: Sequences, angles: tuple[Tensor, Tensor] | None, layer: int, listen: Listener
    ) -> Tensor:
        """x: [T, d_model]; returns the block's output."""
        x = x + listen("attn_out", layer, self.attend(x, sequences, angles))
        x = x + listen("mlp_out", layer, self.mlp(x))
        return listen("resid_post", layer, x)

    def attend(self, x: Tensor, sequences: Sequences, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        """What attention adds to the stream."""
        return self.attention(self.attention_norm(x), sequences, angles)  # type: ignore[no-any-return]

    def mlp(self, x: Tensor) -> Tensor:
        """What the MLP adds to the stream."""
        return self.down(F.gelu(self.up(self.mlp_norm(x))))  # type: ignore[no-any-return]


class PackedEsm(TokenNetwork):
    """The network for evaluation. The modules are the given network's own, and its linear layers share their weights."""

    def __init__(self, network: EsmForMaskedLM):
        super().__init__()
        esm = network.esm
        self.embeddings = esm.embeddings
        self.inv_freq = None if esm.rotary_embeddings is None else esm.rotary_embeddings.inv_freq.float()
        self.blocks = nn.ModuleList(Block(layer, network.config.num_attention_heads) for layer in esm.encoder.layer)
        self.final_norm = esm.encoder.emb_layer_norm_after
        self.lm_head = network.lm_head

    def forward(self, token: Tensor, sequences: Sequences, n_layers: int, listen: Listener) -> Tensor:
        """The output of the first `n_layers` blocks: [T, d_model]. token: int64 [T]."""
        return self.encode(self.embed(token, sequences), sequences, self.angles(sequences), range(n_layers), listen)

    def encode(
        self,
        x: Tensor,
        sequences: Sequences,
        angles: tuple[Tensor, Tensor] | None,
        layers: range,
        listen: Listener,
    ) -> Tensor:
        """The output of some consecutive blocks, given what enters the first of them."""
        for layer in layers:
            x = self.blocks[layer](x, sequences, angles, layer, listen)
        return x

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

    def angles(self, sequences: Sequences) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine of the rotary angles, which begin anew with each sequence: float32 [T, d_head / 2] both."""
        if self.inv_freq is None:
            return None
        table = torch.arange(sequences.longest, device=self.inv_freq.device).float()[:, None] * self.inv_freq
        return table.cos()[sequences.place], table.sin()[sequences.place]

    def predict(self, x: Tensor) -> Tensor:
        """Scores of all tokens, from outputs of the last block: [n, d_model] -> [n, vocabulary]."""
        return self.lm_head(self.final_norm(x))  # type: ignore[no-any-return]
