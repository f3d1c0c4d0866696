"""The planted model as a family: tokens of cells, activations, its own loss, and editing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.items import CountItems, Items
from sae_genomics.models.base import FoundationModel, ModelInfo
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.models.planted.config import FIRST_GENE, READS, describe, small_files
from sae_genomics.models.planted.network import PlantedNetwork, Sequences, UntrainedNetwork
from sae_genomics.models.tx1_tokenise import TokeniserSettings, tokenise
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig
    from sae_genomics.models.base import Intervention


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> Planted:
    """See `sae_genomics.models.load_model`."""
    network = PlantedNetwork(device, getattr(torch, model.compute_dtype))
    return Planted(describe(model), network, small_files(model).tokeniser, device)


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> Planted:
    """See `sae_genomics.models.untrained_model`."""
    network = UntrainedNetwork(device, getattr(torch, model.compute_dtype), seed)
    return Planted(describe(model), network, small_files(model).tokeniser, device)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """There are no files that could disagree; settings can."""
    describe(model, cache_dir)


class Planted(FoundationModel):
    """The planted model, or one of its shape with nothing planted."""

    reads = READS
    hidden_share = 0.5
    loss_name = "mean squared error of hidden values, log1p of counts"
    outcome: ClassVar[str] = "value"

    def __init__(self, info: ModelInfo, network: PlantedNetwork, settings: TokeniserSettings, device: torch.device):
        self.info, self.network, self.tokeniser, self.device = info, network, settings, device

    def tokenise(self, items: Items, seed: int) -> Tokens:
        """`<cls>` and the expressed genes of each cell; `per_token["value"]`: float32 [T], log1p of the count."""
        items = self.items_read(items, CountItems)
        tokens = tokenise(items.counts, items.token, items.rows, settings=self.tokeniser, seed=seed)
        return replace(tokens, per_token={"value": np.log1p(tokens.weight)})

    @torch.inference_mode()
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        """See the base class."""
        rows, value = self._rows(batch, None)
        x, found = self.network.embed(rows, value), {}
        for layer in range(max(layers) + 1):
            x = self.network.block(layer, x, rows)
            if layer in layers:
                found[layer] = x.clone()  # a block without work returns what it was given
        return {layer: found[layer] for layer in layers}

    @torch.inference_mode()
    def masked_loss(
        self,
        batch: Tokens,
        hidden: npt.NDArray[np.bool_],
        hook: str,
        interventions: Mapping[int, Intervention] | None = None,
    ) -> npt.NDArray[np.float64]:
        """(predicted value - value)^2 at each hidden token."""
        rows, value = self._rows(batch, hidden)
        x = self.network.embed(rows, value)
        for layer in range(self.info.n_layers):
            x = self.network.block(layer, x, rows)
            if interventions and layer in interventions:
                x = interventions[layer](x)
        predicted = self.network.head(x, rows)[0].double().cpu().numpy()
        return np.where(hidden, (predicted - batch.per_token["value"]) ** 2, 0.0)

    @torch.no_grad()
    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        """See the base class."""
        rows, value = self._rows(batch, hidden)
        x = self.network.embed(rows, value)
        for each in range(layer + 1):
            x = self.network.block(each, x, rows)
        return Paused(batch, layer, hook, x, hidden)

    def resume(
        self,
        paused: Paused,
        activations: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
        predict: bool = True,
    ) -> Predictions:
        """See the base class."""
        rows, _ = self._rows(paused.batch, paused.hidden)
        x = paused.activations if activations is None else activations.to(paused.activations.dtype)
        found = {paused.layer: x} if paused.layer in layers else {}
        for layer in range(paused.layer + 1, self.info.n_layers if predict else max(layers, default=paused.layer) + 1):
            x = self.network.block(layer, x, rows)
            if layer in layers:
                found[layer] = x
        if not predict:
            return Predictions(None, None, None, found)
        token, from_item, embedding = self.network.head(x, rows)
        return Predictions(token.float(), from_item.float(), embedding.float(), found)

    def _rows(self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None) -> tuple[Sequences, Tensor]:
        dtype = self.network.value.dtype
        visible = ~batch.special if hidden is None else ~(batch.special | hidden)
        gene = np.where(batch.special, -1, batch.token - FIRST_GENE).astype(np.int64)
        sequence = np.repeat(np.arange(batch.n_items), batch.lengths)
        put = self._put
        rows = Sequences(put(gene), put(visible).to(dtype), put(sequence), batch.n_items)
        return rows, put(batch.per_token["value"]).to(dtype)

    def _put(self, values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
