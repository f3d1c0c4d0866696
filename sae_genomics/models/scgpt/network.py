"""scGPT's network on packed rows, with the module names of its checkpoints.

A batch is [T, d_model] rows of all cells, one after the other. Only attention needs to know where a cell begins. The input is
norm(table[gene]) + norm(W2 relu(W1 min(value, 512))), and each block is

    x = norm1(x + attention(x))            attention = out(softmax(q k^T / sqrt(d_head)) v),   q, k, v = Wqkv(x)
    x = norm2(x + mlp(x))                  mlp = linear2(relu(linear1(x)))

With `pre_norm`, scGPT's layer for flash-attn puts the norms in front, and the stream itself goes on normed (there is no final norm):

    x = norm1(x);  x = x + attention(x);   x = norm2(x);  x = x + mlp(x)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae_genomics.models.block_model import Block, BlockNetwork
from sae_genomics.models.cpu_products import DotProductAttention, Linear
from sae_genomics.models.packed_attention import attend
from sae_genomics.models.sequences import Sequences

MAX_VALUE = 512  # of ContinuousValueEncoder; no args.json changes it


@dataclass(frozen=True)
class Shape:
    """What a checkpoint's tensors must be, and how its blocks are computed."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_mlp: int
    pre_norm: bool
    """The blocks of the layer for flash-attn with `pre_norm`; torch's layer, which the other layout is of, has none."""
    has_mvc: bool


class Attention(nn.Module):
    """Every token of a cell attends to every token of it."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.n_heads = shape.n_heads
        self.Wqkv = Linear(shape.d_model, 3 * shape.d_model)
        self.out_proj = Linear(shape.d_model, shape.d_model)
        self.dot_product = DotProductAttention()

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        """x: [T, d_model]."""
        return self.out_proj(attend(self.dot_product, self.Wqkv(x), sequences, self.n_heads))  # type: ignore[no-any-return]


class ScgptBlock(Block):
    """One layer, with the module names of the checkpoints."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.pre_norm = shape.pre_norm
        self.self_attn = Attention(shape)
        self.linear1, self.linear2 = Linear(shape.d_model, shape.d_mlp), Linear(shape.d_mlp, shape.d_model)
        self.norm1, self.norm2 = nn.LayerNorm(shape.d_model), nn.LayerNorm(shape.d_model)

    def attend(self, x: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
        stream = self.norm1(x) if self.pre_norm else x
        return stream, self.self_attn(stream, sequences)

    def mlp(self, stream: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.norm2 if self.pre_norm else self.norm1
        stream = norm(stream + attention)
        return stream, self.linear2(F.relu(self.linear1(stream), inplace=True))

    def output(self, stream: Tensor, mlp: Tensor) -> Tensor:
        x = stream + mlp
        return x if self.pre_norm else self.norm2(x)  # type: ignore[no-any-return]


class GeneEncoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        self.enc_norm = nn.LayerNorm(shape.d_model)

    def forward(self, gene: Tensor) -> Tensor:
        return self.enc_norm(self.embedding(gene))  # type: ignore[no-any-return]


class ValueEncoder(nn.Module):
    """A token's value to a vector (ContinuousValueEncoder)."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.linear1, self.linear2 = Linear(1, shape.d_model), Linear(shape.d_model, shape.d_model)
        self.norm = nn.LayerNorm(shape.d_model)

    def forward(self, value: Tensor) -> Tensor:
        """value: [T]. Values are few and repeat, so each different one is computed once."""
        different, which = value.unique(return_inverse=True)
        given = different.clamp(max=MAX_VALUE).to(self.linear1.weight.dtype)[:, None]
        return self.norm(self.linear2(F.relu(self.linear1(given))))[which]  # type: ignore[no-any-return]


class ExpressionDecoder(nn.Module):
    """A token's final vector to the predicted value of its gene (ExprDecoder, without its zero probabilities)."""

    def __init__(self, shape: Shape):
        super().__init__()
        d = shape.d_model
        self.fc = nn.Sequential(Linear(d, d), nn.LeakyReLU(), Linear(d, d), nn.LeakyReLU(), Linear(d, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)[:, 0]  # type: ignore[no-any-return]


class MvcDecoder(nn.Module):
    """The same from the cell's embedding: its inner product with W sigmoid(gene2query(gene's vector))."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.gene2query = Linear(shape.d_model, shape.d_model)
        self.W = Linear(shape.d_model, shape.d_model, bias=False)

    def forward(self, cell: Tensor, gene_vectors: Tensor, of_token: Tensor) -> Tensor:
        query = self.gene2query(gene_vectors).sigmoid()
        # (W q) . c = q . (W^T c): one product a cell rather than one a token
        return (query * (cell @ self.W.weight)[of_token]).sum(-1)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.layers = nn.ModuleList(ScgptBlock(shape) for _ in range(shape.n_layers))


class ScgptNetwork(BlockNetwork):
    """The whole model, for evaluation: its dropout is left out."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.encoder, self.value_encoder = GeneEncoder(shape), ValueEncoder(shape)
        self.transformer_encoder = Encoder(shape)
        self.decoder = ExpressionDecoder(shape)
        if shape.has_mvc:
            self.mvc_decoder = MvcDecoder(shape)

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        return self.transformer_encoder.layers

    def embed(self, gene: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """gene: int64 [T]; value: float32 [T]. Returns the genes' own vectors and what enters the first block, both [T, d_model]."""
        gene_vectors = self.encoder(gene)
        return gene_vectors, gene_vectors + self.value_encoder(value)

    def decode(self, x: Tensor, gene_vectors: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cell embeddings [cells, d_model], predicted values [T], and the same from the cell embeddings where there is that decoder."""
        cell = x[torch.from_numpy(sequences.ptr[:-1]).to(x.device)]
        mvc = self.mvc_decoder(cell, gene_vectors, sequences.of_token) if hasattr(self, "mvc_decoder") else None
        return cell, self.decoder(x), mvc
