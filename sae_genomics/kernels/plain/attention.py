"""Attention within each of many sequences, by torch's own function."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor


def attend(qkv: Tensor, ptr: npt.NDArray[np.int64], n_heads: int, kv_n_heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d_head)) v within each sequence. Several heads may share one k and v.

    qkv: [T, (n_heads + 2 kv_n_heads) d_head]. ptr: int64 [sequences + 1]. Returns [T, n_heads d_head] of the same dtype.
    """
    n = n_heads + 2 * kv_n_heads
    heads = qkv.unflatten(1, (n, qkv.shape[1] // n)).transpose(0, 1)  # [heads, T, d_head]
    q, k, v = heads.split([n_heads, kv_n_heads, kv_n_heads])
    k, v = (x.repeat_interleave(n_heads // kv_n_heads, 0) for x in (k, v))
    mixed = qkv.new_empty(len(qkv), q.shape[0] * q.shape[2])
    for start, stop in pairwise(ptr.tolist()):
        part = slice(start, stop)
        mixed[part] = F.scaled_dot_product_attention(q[:, part], k[:, part], v[:, part]).transpose(0, 1).flatten(1)
    return mixed
