"""The part that computes: tokens of lines, activations of layers, the loss at hidden letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.config import ModelConfig
from sae_genomics.items import Items, SequenceItems
from sae_genomics.models.base import FoundationModel, ModelInfo
from sae_genomics.tokens import Tokens, pointers

from .config import D_MODEL, MASK, N_LAYERS, N_TOKENS, READS, describe

FIRST_LETTER = 4


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> Liner:
    return Liner(describe(model), N_TOKENS, device, seed=1)


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> Liner:
    return Liner(describe(model), N_TOKENS, device, seed=2 + seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """There are no files that could disagree."""


class Liner(FoundationModel):
    """x <- x + tanh((x + x of the letter before) W), in each layer."""

    reads, hidden_share, loss_name = READS, 0.3, "cross-entropy of hidden letters, in nats"
    mask_token: int | None = MASK

    def __init__(self, info: ModelInfo, n_tokens: int, device: torch.device, seed: int):
        self.info, self.device = info, device
        draw = torch.Generator().manual_seed(seed)
        self.embedding = torch.randn(n_tokens, D_MODEL, generator=draw).to(device)
        self.weights = (torch.randn(N_LAYERS, D_MODEL, D_MODEL, generator=draw) / D_MODEL**0.5).to(device)

    def tokenise(self, items: Items, seed: int) -> Tokens:
        assert isinstance(items, SequenceItems)
        lengths = np.array([len(line) for line in items.sequences], dtype=np.int64)
        letters = np.frombuffer("".join(items.sequences).encode(), dtype=np.uint8)
        unit = letters.astype(np.int32) - ord("A")
        return packed(items.rows, pointers(lengths), unit + FIRST_LETTER, unit, np.zeros(len(unit), dtype=bool))

    def _states(self, batch: Tokens, token: npt.NDArray[np.int32], interventions: Mapping[int, Any]) -> list[Tensor]:
        x, first = self.embedding[torch.from_numpy(token).long()], torch.from_numpy(batch.position == 0)
        states = []
        for layer, weights in enumerate(self.weights):
            before = torch.where(first[:, None], 0, x.roll(1, dims=0))
            x = x + torch.tanh((x + before) @ weights)
            x = interventions[layer](x) if layer in interventions else x
            states.append(x)
        return states

    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        states = self._states(batch, batch.token, {})
        return {layer: states[layer] for layer in layers}

    def masked_loss(
        self, batch: Tokens, hidden: npt.NDArray[np.bool_], hook: str, interventions: Any = None
    ) -> npt.NDArray[np.float64]:
        token = np.where(hidden, np.int32(MASK), batch.token)
        logits = self._states(batch, token, interventions or {})[-1] @ self.embedding.T
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.token).long(), reduction="none")
        return np.where(hidden, loss.double().cpu().numpy(), 0.0)


def packed(
    rows: npt.NDArray[np.int64],
    ptr: npt.NDArray[np.int64],
    token: npt.NDArray[np.int32],
    unit: npt.NDArray[np.int32],
    special: npt.NDArray[np.bool_],
) -> Tokens:
    """Tokens of items that stand one after the other. rows: [items]. ptr: [items + 1]. The rest: [tokens]."""
    lengths = np.diff(ptr)
    return Tokens(
        item=np.repeat(rows, lengths),
        token=token,
        unit=unit,
        position=(np.arange(len(token)) - np.repeat(ptr[:-1], lengths)).astype(np.int32),
        weight=np.ones(len(token), dtype=np.float32),
        special=special,
        item_ptr=ptr,
    )
