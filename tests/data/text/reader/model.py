"""The part that computes: the network of `tests/data/liner`, on word pieces, with the loss of each next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.config import ModelConfig
from sae_genomics.items import Items, TextItems
from sae_genomics.tokens import Tokens
from tests.data.liner.model import Liner, packed

from .config import READS, describe, text_tokeniser


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> Reader:
    return Reader(model, device, seed=1)


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> Reader:
    return Reader(model, device, seed=2 + seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """There are no files that could disagree."""


class Reader(Liner):
    """Nothing is hidden from it: a piece is predicted from those before it."""

    reads, hidden_share, loss_name = READS, 1.0, "cross-entropy of the next word piece, in nats"
    mask_token = None

    def __init__(self, model: ModelConfig, device: torch.device, seed: int):
        self.pieces = text_tokeniser(model)
        super().__init__(describe(model), self.pieces.vocab_size, device, seed)

    def tokenise(self, items: Items, seed: int) -> Tokens:
        assert isinstance(items, TextItems)
        ids, ptr = self.pieces.encode(items.texts, items.max_tokens)
        special = np.isin(ids, list(self.pieces.special_ids))
        unit = np.searchsorted(items.token, ids).astype(np.int32)
        return packed(items.rows, ptr, ids, np.where(special, np.int32(-1), unit), special)

    def masked_loss(
        self, batch: Tokens, hidden: npt.NDArray[np.bool_], hook: str, interventions: Any = None
    ) -> npt.NDArray[np.float64]:
        before = self._states(batch, batch.token, interventions or {})[-1].roll(1, dims=0)
        loss = torch.nn.functional.cross_entropy(
            before @ self.embedding.T, torch.from_numpy(batch.token).long(), reduction="none"
        )
        return np.where(hidden & (batch.position > 0), loss.double().cpu().numpy(), 0.0)
