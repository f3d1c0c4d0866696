"""Rotary positions (Su et al. 2021): each pair of a head's numbers (i, i + d_head / 2) is turned by its place times a frequency."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(qkv: Tensor, cos: Tensor, sin: Tensor, n_heads: int) -> Tensor:
    """Turn queries and keys; values stay. In float32, whatever dtype qkv has.

    qkv: [T, 3 n_heads d_head], which may be changed. cos, sin: float32 [T, d_head / 2]. Returns [T, 3 n_heads d_head].
    """
    heads = qkv.view(len(qkv), 3 * n_heads, 2, -1)[:, : 2 * n_heads]
    first, second = heads.float().unbind(2)
    cos, sin = cos[:, None, :], sin[:, None, :]
    heads.copy_(torch.stack((first * cos - second * sin, second * cos + first * sin), dim=2))
    return qkv
