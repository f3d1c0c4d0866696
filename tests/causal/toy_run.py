"""A run without files: items in memory, and a toy model that can be stopped and goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sae_genomics.causal import fires, knockout, steering
from sae_genomics.causal.samples import Sample
from sae_genomics.causal.section import CausalConfig
from sae_genomics.data.units import Units
from sae_genomics.models.base import FoundationModel
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.sae.load import Encoder
from sae_genomics.tokens import Tokens, pointers


class ToyModel:
    """`weigh` says what a token's activations are; `predict` what is predicted of values, from activations after the hook.

    An item's embedding is the mean of its tokens' activations.
    """

    outcome = "value"
    hidden_share = 0.15
    predicts_next = False
    mask_token = None
    piece_tokens = None

    predicted = FoundationModel.predicted

    def __init__(self, d_model: int):
        self.info = SimpleNamespace(d_model=d_model, n_layers=1)

    def weigh(self, batch: Tokens) -> torch.Tensor:
        raise NotImplementedError

    def predict(self, batch: Tokens, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: Any = None) -> Paused:
        return Paused(batch, layer, hook, self.weigh(batch), hidden)

    def resume(self, paused: Paused, activations: torch.Tensor | None = None, **options: Any) -> Predictions:
        x = paused.activations if activations is None else activations
        batch = paused.batch
        item = torch.repeat_interleave(torch.arange(batch.n_items), torch.from_numpy(batch.lengths))
        sums = torch.zeros(batch.n_items, x.shape[1]).index_add(0, item, x.float())
        return Predictions(self.predict(batch, x.float()), None, sums / torch.from_numpy(batch.lengths)[:, None])


def tokens_of(units_of_items: list[np.ndarray], values: list[np.ndarray], first: int = 0) -> Tokens:
    """One sequence per item."""
    lengths = np.array([len(each) for each in units_of_items])
    unit = np.concatenate(units_of_items).astype(np.int32)
    return Tokens(
        np.repeat(first + np.arange(len(lengths)), lengths), unit, unit, np.zeros(len(unit), np.int32), np.ones(len(unit), np.float32),
        np.zeros(len(unit), bool), pointers(lengths), {"value": np.concatenate(values).astype(np.float32)},
    )  # fmt: skip


def toy_run(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tokens: Tokens, items: pd.DataFrame, n_units: int, **settings: Any
) -> Any:
    """What the writers ask of a run. items: columns heldout, label, group."""
    items = items.assign(item=np.arange(len(items)), item_id=[f"item{row}" for row in range(len(items))])
    names = np.array([f"G{unit}" for unit in range(n_units)], dtype=object)
    units = Units(np.arange(n_units, dtype=np.int32), names, names, np.ones(n_units))
    kind = SimpleNamespace(
        read_items=lambda run, columns=None: items if columns is None else items[list(columns)],
        read_units=lambda run: units,
    )
    config = SimpleNamespace(
        causal=CausalConfig(**settings), run=SimpleNamespace(seed=0), model=SimpleNamespace(hook="resid_post"),
        activations=SimpleNamespace(batch_tokens=512), data=SimpleNamespace(group_key=None),
    )  # fmt: skip

    def read_sample(run: Any, model: Any, rows: np.ndarray) -> Sample:
        return Sample(rows, tokens.take(rows), np.arange(len(rows)))

    for module in (steering, fires, knockout):
        monkeypatch.setattr(module, "read_sample", read_sample)
    return SimpleNamespace(
        kind=kind, config=config, layer_results=lambda layer: folder, units_file=folder / "units.parquet"
    )


def encoder_of(directions: np.ndarray, threshold: float = 0.2) -> Encoder:
    """One feature per direction, active above a threshold."""
    w = torch.from_numpy(np.ascontiguousarray(directions, dtype=np.float32))
    d_sae, d_model = w.shape
    thresholds = torch.full((d_sae,), threshold)
    return Encoder("jumprelu", w.T.contiguous(), torch.zeros(d_sae), w, torch.zeros(d_model), threshold=thresholds)
