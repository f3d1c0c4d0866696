"""Attention on packed rows, and linear layers that share the weights of transformers' own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sae_genomics.models.cpu_products import DotProductAttention, Linear
from sae_genomics.models.sequences import Sequences


class PackedAttention(nn.Module):
    """Every token of a sequence attends to every token of it: out(softmax(q k^T / sqrt(d_head)) v), with q, k, v = qkv(x)."""

    def __init__(self, query: nn.Linear, key: nn.Linear, value: nn.Linear, out: nn.Linear, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = side_by_side(query, key, value)
        self.out = linear(out)
        self.dot_product = DotProductAttention()

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        """x: [T, d_model]; what `out` gives, of the same shape."""
        return self.mix(self.qkv(x), sequences)

    def mix(self, qkv: Tensor, sequences: Sequences) -> Tensor:
        """qkv: [T, 3 d_model]."""
        return self.out(attend(self.dot_product, qkv, sequences, self.n_heads))  # type: ignore[no-any-return]


def attend(dot_product: DotProductAttention, qkv: Tensor, sequences: Sequences, n_heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d_head)) v, where every token of a sequence attends to every token of it.

    qkv: [T, 3 d_model]. Returns [T, d_model].
    """
    mixed = dot_product.of_packed(qkv, sequences.ptr, n_heads, n_heads)
    if mixed is not None:
        return mixed
    if sequences.padded:
        mask = None if sequences.is_uniform else sequences.real[:, None, None, :]  # type: ignore[index]
        return sequences.pack(_of_padded(dot_product, sequences.pad(qkv), mask, n_heads))
    bounds = zip(sequences.ptr[:-1].tolist(), sequences.ptr[1:].tolist(), strict=True)
    return torch.cat([_of_padded(dot_product, qkv[None, start:stop], None, n_heads)[0] for start, stop in bounds])


def _of_padded(dot_product: DotProductAttention, qkv: Tensor, mask: Tensor | None, n_heads: int) -> Tensor:
    """[sequences, length, 3 d_model] -> [sequences, length, d_model]."""
    count, length, width = qkv.shape
    heads = qkv.view(count, length, 3 * n_heads, width // (3 * n_heads))
    q, k, v = heads.transpose(1, 2).split(n_heads, dim=1)
    return dot_product(q, k, v, mask).transpose(1, 2).reshape(count, length, width // 3)  # type: ignore[no-any-return]


def side_by_side(*layers: nn.Linear) -> Linear:
    """One layer that gives the outputs of several. Theirs become views of its weights, so that there is one copy."""
    joined = linear(
        layers[0], torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    )
    weights, biases = joined.weight.chunk(len(layers)), joined.bias.chunk(len(layers))
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return joined


def linear(layer: nn.Linear, weight: Tensor | None = None, bias: Tensor | None = None) -> Linear:
    """A layer that may use kernels, with the weights of another one, or with given ones."""
    weight = layer.weight if weight is None else weight
    made = Linear(weight.shape[1], weight.shape[0], device="meta")
    made.weight = nn.Parameter(weight.detach())
    made.bias = nn.Parameter((layer.bias if bias is None else bias).detach())
    return made
