"""The part that computes: activations of layers, and the loss of each next piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.config import ModelConfig
from sae_genomics.items import Items, TextItems
from sae_genomics.models.base import FoundationModel
from sae_genomics.tokens import Tokens

from .config import D_MODEL, N_LAYERS, READS, describe, text_tokeniser


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> Reader:
    return Reader(model, device, seed=1)


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> Reader:
    return Reader(model, device, seed=2 + seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """There are no files that could disagree."""


class Reader(FoundationModel):
    """x <- x + tanh((x + x of the piece before) W), in each layer."""

    reads, hidden_share, loss_name = READS, 1.0, "cross-entropy of the next word piece, in nats"

    def __init__(self, model: ModelConfig, device: torch.device, seed: int):
        self.info, self.device = describe(model), device
        self.pieces = text_tokeniser(model)
        draw = torch.Generator().manual_seed(seed)
        self.embedding = torch.randn(self.pieces.vocab_size, D_MODEL, generator=draw).to(device)
        self.weights = (torch.randn(N_LAYERS, D_MODEL, D_MODEL, generator=draw) / D_MODEL**0.5).to(device)

    def tokenise(self, items: Items, seed: int) -> Tokens:
        assert isinstance(items, TextItems)
        ids, ptr = self.pieces.encode(items.texts, items.max_tokens)
        lengths, special = np.diff(ptr), np.isin(ids, list(self.pieces.special_ids))
        unit = np.searchsorted(items.token, ids).astype(np.int32)
        return Tokens(
            item=np.repeat(items.rows, lengths),
            token=ids,
            unit=np.where(special, np.int32(-1), unit),
            position=(np.arange(len(ids)) - np.repeat(ptr[:-1], lengths)).astype(np.int32),
            weight=np.ones(len(ids), dtype=np.float32),
            special=special,
            item_ptr=ptr,
        )

    def _states(self, batch: Tokens, interventions: Mapping[int, Any]) -> list[Tensor]:
        x, first = self.embedding[torch.from_numpy(batch.token).long()], torch.from_numpy(batch.position == 0)
        states = []
        for layer, weights in enumerate(self.weights):
            before = torch.where(first[:, None], 0, x.roll(1, dims=0))
            x = x + torch.tanh((x + before) @ weights)
            x = interventions[layer](x) if layer in interventions else x
            states.append(x)
        return states

    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        states = self._states(batch, {})
        return {layer: states[layer] for layer in layers}

    def masked_loss(
        self, batch: Tokens, hidden: npt.NDArray[np.bool_], hook: str, interventions: Any = None
    ) -> npt.NDArray[np.float64]:
        before = self._states(batch, interventions or {})[-1].roll(1, dims=0)
        loss = torch.nn.functional.cross_entropy(
            before @ self.embedding.T, torch.from_numpy(batch.token).long(), reduction="none"
        )
        return np.where(hidden & (batch.position > 0), loss.double().cpu().numpy(), 0.0)
