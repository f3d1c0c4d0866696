"""scGPT, loaded: a folder to activations and losses of hidden values, on CPU, CUDA or MPS, without flash-attn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.models.base import ModelInfo
from sae_genomics.models.cpu_products import tokens_at_once, use_kernels
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.models.scgpt import editing
from sae_genomics.models.scgpt.base import Outputs, ScgptModel
from sae_genomics.models.scgpt.config import describe, find_folder
from sae_genomics.models.scgpt.folder import ScgptFolder, read_folder
from sae_genomics.models.scgpt.weights import load_network, random_network, read_checkpoint
from sae_genomics.models.sequences import Listener, Sequences, pieces_of
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> ScgptModel:
    """See `sae_genomics.models.load_model`."""
    folder, info = read_folder(find_folder(model)), describe(model, cache_dir)
    dtype = getattr(torch, model.compute_dtype)
    if model.backend == "reference":
        from sae_genomics.models.scgpt.reference import ReferenceScgpt

        return ReferenceScgpt(folder, info, device, dtype)
    return Scgpt(folder, info, device, dtype)


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> Scgpt:
    """See `sae_genomics.models.untrained_model`. In our own code, whatever `model.backend` says."""
    dtype = getattr(torch, model.compute_dtype)
    return Scgpt(read_folder(find_folder(model)), describe(model, cache_dir), device, dtype, untrained_seed=seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """See `sae_genomics.models.check_model`."""
    read_checkpoint(read_folder(find_folder(model)))
    if model.backend == "reference":
        from sae_genomics.models.scgpt.reference import package_model

        package_model()


def load_folder(folder: Path, *, device: str = "cpu", dtype: str = "float32") -> Scgpt:
    """Load a model folder without a run's config, for scripts and notebooks."""
    read = read_folder(Path(folder))
    return Scgpt(read, read.describe(Path(folder).name), torch.device(device), getattr(torch, dtype))


class Scgpt(ScgptModel):
    """An scGPT checkpoint, loaded.

    untrained_seed: random weights from that seed instead of the checkpoint's.
    """

    outcome = "value"

    def __init__(
        self,
        folder: ScgptFolder,
        info: ModelInfo,
        device: torch.device,
        dtype: torch.dtype,
        *,
        untrained_seed: int | None = None,
    ):
        self.info, self.folder, self.device = info, folder, device
        checkpoint = read_checkpoint(folder)
        if untrained_seed is None:
            self.network = load_network(checkpoint, device, dtype)
        else:
            self.network = random_network(checkpoint, device, dtype, untrained_seed)
        use_kernels(self.network, device, dtype)
        if device.type == "cpu":
            self.piece_tokens = tokens_at_once(max(folder.d_mlp, 3 * folder.d_model))
        self._counting = threading.Lock()
        self._read = self._computed = 0

    @property
    def padding_share(self) -> float:
        """Share of the tokens computed so far that were padding. Linear layers compute none; attention does on an accelerator."""
        return 1 - self._read / self._computed if self._computed else 0.0

    @torch.inference_mode()
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        wanted = set(layers)
        parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}

        def listen(at: str, layer: int, x: Tensor) -> Tensor:
            if at == hook and layer in wanted:
                parts[layer].append(x)
            return x

        gene, value = self.seen(batch, None)
        for first, last in pieces_of(batch.item_ptr, self.piece_tokens):
            rows, sequences = self._sequences(batch.item_ptr, first, last)
            _, x = self.network.embed(gene[rows], value[rows])
            self.network.encode(x, sequences, range(max(wanted) + 1), listen)
        return {layer: rows[0] if len(rows) == 1 else torch.cat(rows) for layer, rows in parts.items()}

    @torch.inference_mode()
    def outputs(
        self,
        batch: Tokens,
        *,
        masked: npt.NDArray[np.bool_] | None = None,
        hook: str = "resid_post",
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> Outputs:
        changes = interventions or {}

        def change(at: str, layer: int, x: Tensor) -> Tensor:
            return changes[layer](x) if at == hook and layer in changes else x

        listen: Listener = change if changes else editing.unheard
        sequences = self.sequences(batch)  # interventions are given all rows at once
        gene_vectors, x = self.network.embed(*self.seen(batch, masked))
        x = self.network.encode(x, sequences, range(self.info.n_layers), listen)
        return Outputs(*self.network.decode(x, gene_vectors, sequences))

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        return editing.pause(self, batch, layer, hook, hidden)

    def resume(
        self, paused: Paused, activations: Tensor | None = None, *, layers: Sequence[int] = (), predict: bool = True
    ) -> Predictions:
        return editing.resume(self, paused, activations, layers, predict)

    def seen(self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None) -> tuple[Tensor, Tensor]:
        """Genes int64 [T] and values float32 [T] as the model reads them."""
        gene = torch.from_numpy(np.ascontiguousarray(batch.token)).to(self.device).long()
        return gene, torch.from_numpy(np.ascontiguousarray(self.values(batch, hidden))).to(self.device)

    def sequences(self, batch: Tokens) -> Sequences:
        """Where the batch's cells begin."""
        return self._sequences(batch.item_ptr, 0, batch.n_items)[1]

    def _sequences(self, ptr: npt.NDArray[np.int64], first: int, last: int) -> tuple[slice, Sequences]:
        start, stop = int(ptr[first]), int(ptr[last])
        sequences = Sequences(ptr[first : last + 1] - start, self.device, padded=self.device.type != "cpu")
        with self._counting:
            self._read += stop - start
            self._computed += sequences.computed
        return slice(start, stop), sequences
