"""ESM2, loaded: a folder of weights to activations and masked-residue losses, on CPU, CUDA or MPS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.errors import UserError
from sae_genomics.items import Items, SequenceItems
from sae_genomics.models.base import FoundationModel, ModelInfo
from sae_genomics.models.cpu_products import tokens_at_once, use_kernels
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.models.esm2 import editing
from sae_genomics.models.esm2.config import READS, describe, find_folder
from sae_genomics.models.esm2.folder import Esm2Folder, read_folder
from sae_genomics.models.esm2.packed import PackedEsm
from sae_genomics.models.esm2.tokenise import tokenise
from sae_genomics.models.esm2.weights import check_shapes, load_network, random_network
from sae_genomics.models.sequences import Sequences, pieces_of
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> Esm2:
    """See `sae_genomics.models.load_model`."""
    folder = read_folder(find_folder(model, cache_dir))
    return Esm2(folder, describe(model, cache_dir), device, getattr(torch, model.compute_dtype))


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> Esm2:
    """See `sae_genomics.models.untrained_model`."""
    folder = read_folder(find_folder(model, cache_dir))
    dtype = getattr(torch, model.compute_dtype)
    return Esm2(folder, describe(model, cache_dir), device, dtype, untrained_seed=seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """See `sae_genomics.models.check_model`."""
    check_shapes(read_folder(find_folder(model, cache_dir)))


def load_folder(folder: Path, *, device: str = "cpu", dtype: str = "float32") -> Esm2:
    """Load a model folder without a run's config, for scripts and notebooks."""
    read = read_folder(Path(folder))
    return Esm2(read, read.describe(Path(folder).name), torch.device(device), getattr(torch, dtype))


class Esm2(FoundationModel):
    """An ESM2 checkpoint, loaded.

    untrained_seed: random weights from that seed instead of the checkpoint's.
    """

    reads = READS
    hidden_share = 0.15
    loss_name = "cross-entropy of hidden residues, in nats"
    outcome = "distribution"

    def __init__(
        self,
        folder: Esm2Folder,
        info: ModelInfo,
        device: torch.device,
        dtype: torch.dtype,
        *,
        untrained_seed: int | None = None,
    ):
        self.info, self.folder, self.device = info, folder, device
        self.mask_token: int = folder.token_id("<mask>")
        if not folder.has_head and untrained_seed is None:
            self.why_no_loss = f"{info.name} has no lm_head, so its masked loss cannot be measured; save it from EsmForMaskedLM rather than EsmModel"
        made = load_network(folder, dtype) if untrained_seed is None else random_network(folder, dtype, untrained_seed)
        self.network = PackedEsm(made).eval().requires_grad_(False)
        if self.network.inv_freq is not None:
            self.network.inv_freq = self.network.inv_freq.to(device)
        self.network.to(device)
        use_kernels(self.network, device, dtype)
        if device.type == "cpu":
            self.piece_tokens = tokens_at_once(max(folder.config["intermediate_size"], 3 * folder.d_model))
        self._counting = threading.Lock()
        self._read = self._computed = 0

    @property
    def padding_share(self) -> float:
        """Share of the tokens computed so far that were padding. Linear layers compute none; attention does on an accelerator."""
        return 1 - self._read / self._computed if self._computed else 0.0

    def tokenise(self, items: Items, seed: int) -> Tokens:
        """The proteins' tokens; see `sae_genomics.models.esm2.tokenise`. seed: decides nothing here."""
        if not isinstance(items, SequenceItems):
            raise UserError(
                f"model {self.info.name} reads proteins, not counts; set data.kind to proteins, or another model.family"
            )
        return tokenise(items, self.folder)

    @torch.inference_mode()
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        wanted = set(layers)
        parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}

        def listen(at: str, layer: int, x: Tensor) -> Tensor:
            if at == hook and layer in wanted:
                parts[layer].append(x)
            return x

        token = self._on_device(batch.token)
        for first, last in pieces_of(batch.item_ptr, self.piece_tokens):
            rows, sequences = self._sequences(batch.item_ptr, first, last)
            self.network(token[rows], sequences, max(wanted) + 1, listen)
        return {layer: rows[0] if len(rows) == 1 else torch.cat(rows) for layer, rows in parts.items()}

    @torch.inference_mode()
    def masked_loss(
        self,
        batch: Tokens,
        hidden: npt.NDArray[np.bool_],
        hook: str,
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Cross-entropy in nats of each hidden residue, which the model sees as <mask>: float64 [T], 0 at other rows.

        interventions: layer -> function given that layer's activations at `hook` ([T, d_model]) and returning what the model goes
        on with. Raises UserError when the checkpoint has no lm_head.
        """
        if self.why_no_loss:
            raise UserError(self.why_no_loss)
        changes = interventions or {}

        def change(at: str, layer: int, x: Tensor) -> Tensor:
            return changes[layer](x) if at == hook and layer in changes else x

        token, is_hidden = self._on_device(batch.token), torch.from_numpy(hidden).to(self.device)
        sequences = self.sequences(batch)  # interventions are given all rows at once
        x = self.network(self.seen(batch, hidden), sequences, self.info.n_layers, change)
        scores = self.network.predict(x[is_hidden])
        loss = torch.zeros(len(batch), dtype=torch.float64)
        losses = torch.nn.functional.cross_entropy(scores.cpu().double(), token[is_hidden].cpu(), reduction="none")
        loss[torch.from_numpy(hidden)] = losses
        return loss.numpy()

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        return editing.pause(self, batch, layer, hook, hidden)

    def resume(
        self, paused: Paused, activations: Tensor | None = None, *, layers: Sequence[int] = (), predict: bool = True
    ) -> Predictions:
        return editing.resume(self, paused, activations, layers, predict)

    def seen(self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None) -> Tensor:
        """Token ids as the model reads them, <mask> where they are hidden: int64 [T]."""
        token = self._on_device(batch.token)
        if hidden is None:
            return token
        return torch.where(torch.from_numpy(hidden).to(self.device), self.mask_token, token)

    def sequences(self, batch: Tokens) -> Sequences:
        """Where the batch's sequences begin."""
        return self._sequences(batch.item_ptr, 0, batch.n_items)[1]

    def _on_device(self, token: npt.NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(token)).to(self.device).long()

    def _sequences(self, ptr: npt.NDArray[np.int64], first: int, last: int) -> tuple[slice, Sequences]:
        start, stop = int(ptr[first]), int(ptr[last])
        sequences = Sequences(ptr[first : last + 1] - start, self.device, padded=self.device.type != "cpu")
        with self._counting:
            self._read += stop - start
            self._computed += sequences.computed
        return slice(start, stop), sequences
