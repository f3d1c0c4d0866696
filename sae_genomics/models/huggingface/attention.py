"""Causal attention within each sequence of packed rows, as transformers' modules ask for it.

transformers lets a model call an attention function by its name. This one gets the rows of all sequences one after the other,
[1, heads, T, d_head], and computes

    softmax(c(q k^T scaling) + mask) v        c(s) = cap tanh(s / cap) where scores are capped (Gemma 2), else s

within each sequence. A key is seen by its own query and by later ones, in a layer with a sliding window by the next `window - 1`
of them. Keys and values may have fewer heads than queries: each then serves a group of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sae_genomics.models.huggingface.current import current_pass
from sae_genomics.models.sequences import Sequences

NAME = "sae_genomics_packed"
_BLOCK = 512  # queries at a time where scores are masked or capped, so that memory grows with the text's length alone


def register() -> None:
    """Let transformers' models use this function by its NAME. No mask is made for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **further: Any,
) -> tuple[Tensor, None]:
    """query: [1, heads, T, d_head]; key, value: [1, heads of them, T, d_head]. Returns [1, T, heads, d_head], as transformers wants it."""
    sequences = current_pass().sequences
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    mixed = (_padded if sequences.padded else _one_by_one)(
        query, key, value, sequences, scaling, sliding_window, softcap
    )
    return mixed, None


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sequences: Sequences,
    scaling: float,
    window: int | None,
    cap: float | None,
) -> Tensor:
    parts = [
        _causal(query[:, :, start:stop], key[:, :, start:stop], value[:, :, start:stop], scaling, window, cap)
        for start, stop in zip(sequences.ptr[:-1].tolist(), sequences.ptr[1:].tolist(), strict=True)
        if stop > start
    ]
    if not parts:
        return query.transpose(1, 2)
    mixed = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return mixed.transpose(1, 2)


def _padded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sequences: Sequences,
    scaling: float,
    window: int | None,
    cap: float | None,
) -> Tensor:
    """All sequences at once. Padding stands behind a sequence, where none of its queries looks."""

    def pad(x: Tensor) -> Tensor:
        heads, width = x.shape[1], x.shape[3]
        rows = x[0].transpose(0, 1).reshape(x.shape[2], heads * width)
        return sequences.pad(rows).view(sequences.count, sequences.longest, heads, width).transpose(1, 2)

    mixed = _causal(pad(query), pad(key), pad(value), scaling, window, cap).transpose(1, 2)
    rows = sequences.pack(mixed.reshape(sequences.count, sequences.longest, -1))
    return rows.view(1, rows.shape[0], query.shape[1], -1)


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, cap: float | None) -> Tensor:
    """[sequences, heads, length, d_head] -> the same."""
    length, groups = query.shape[2], query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if window is not None and window >= length:
        window = None
    if window is None and cap is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    parts = []
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        first = 0 if window is None else max(start - window + 1, 0)
        part = (query[:, :, start:stop], key[:, :, first:stop], value[:, :, first:stop])
        seen = _seen(start, stop, first, window, query.device)
        parts.append(_masked(*part, seen, scaling, cap))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _seen(start: int, stop: int, first: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys, from `first` to `stop`, the queries from `start` to `stop` see: bool [queries, keys]."""
    behind = torch.arange(start, stop, device=device)[:, None] - torch.arange(first, stop, device=device)
    seen = behind >= 0
    return seen if window is None else seen & (behind < window)


def _masked(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scaling: float, cap: float | None) -> Tensor:
    if cap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
    scores = torch.matmul(query, key.transpose(-1, -2)) * (scaling / cap)
    scores = torch.tanh(scores) * cap
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    return torch.matmul(torch.softmax(scores, dim=-1, dtype=dtype).to(value.dtype), value)
