"""scGPT, loaded: a folder to activations and losses of hidden values, on CPU, CUDA or MPS, without flash-attn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.models.base import ModelInfo
from sae_genomics.models.block_model import BlockModel
from sae_genomics.models.editing import Paused, Predictions, changed_at, not_half
from sae_genomics.models.scgpt.base import Outputs, ScgptModel
from sae_genomics.models.scgpt.config import describe, small_files
from sae_genomics.models.scgpt.folder import ScgptFolder, read_folder
from sae_genomics.models.scgpt.network import ScgptNetwork
from sae_genomics.models.scgpt.weights import load_network, random_network, read_checkpoint
from sae_genomics.models.sequences import Listener, Sequences
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig

GENE_VECTORS = "gene_vectors"  # in `Paused.per_token`


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> ScgptModel:
    """See `sae_genomics.models.load_model`."""
    folder, info = small_files(model, cache_dir), describe(model, cache_dir)
    dtype = getattr(torch, model.compute_dtype)
    if model.backend == "reference":
        from sae_genomics.models.scgpt.reference import ReferenceScgpt

        return ReferenceScgpt(folder, info, device, dtype)
    return Scgpt(folder, info, device, dtype)


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> Scgpt:
    """See `sae_genomics.models.untrained_model`. In our own code, whatever `model.backend` says."""
    dtype = getattr(torch, model.compute_dtype)
    return Scgpt(small_files(model, cache_dir), describe(model, cache_dir), device, dtype, untrained_seed=seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """See `sae_genomics.models.check_model`."""
    read_checkpoint(small_files(model, cache_dir))
    if model.backend == "reference":
        from sae_genomics.models.scgpt.reference import package_model

        package_model()


def load_folder(folder: Path, *, device: str = "cpu", dtype: str = "float32") -> Scgpt:
    """Load a model folder without a run's config, for scripts and notebooks."""
    read = read_folder(Path(folder))
    return Scgpt(read, read.describe(Path(folder).name), torch.device(device), getattr(torch, dtype))


class Scgpt(BlockModel, ScgptModel):
    """An scGPT checkpoint, loaded.

    untrained_seed: random weights from that seed instead of the checkpoint's.
    """

    outcome = "value"
    network: ScgptNetwork

    def __init__(
        self,
        folder: ScgptFolder,
        info: ModelInfo,
        device: torch.device,
        dtype: torch.dtype,
        *,
        untrained_seed: int | None = None,
    ):
        self.folder = folder
        checkpoint = read_checkpoint(folder)
        if untrained_seed is None:
            network = load_network(checkpoint, device, dtype)
        else:
            network = random_network(checkpoint, device, dtype, untrained_seed)
        super().__init__(info, network, device, dtype, widest=max(folder.d_mlp, 3 * folder.d_model))

    def given(self, batch: Tokens) -> tuple[Tensor, Tensor]:
        return self.seen(batch, None)

    def run(self, given: tuple[Tensor, ...], sequences: Sequences, n_layers: int, listen: Listener) -> None:
        _, x = self.network.embed(*given)
        self.network.encode(x, sequences, range(n_layers), listen)

    @torch.inference_mode()
    def outputs(
        self,
        batch: Tokens,
        *,
        masked: npt.NDArray[np.bool_] | None = None,
        hook: str = "resid_post",
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> Outputs:
        sequences = self.sequences(batch)  # interventions are given all rows at once
        gene_vectors, x = self.network.embed(*self.seen(batch, masked))
        x = self.network.encode(x, sequences, range(self.info.n_layers), changed_at(hook, interventions or {}))
        return Outputs(*self.network.decode(x, gene_vectors, sequences))

    def embed(
        self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None, sequences: Sequences
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gene_vectors, x = self.network.embed(*self.seen(batch, hidden))
        return x, {GENE_VECTORS: gene_vectors}

    def decode(self, x: Tensor, paused: Paused, sequences: Sequences) -> Predictions:
        embedding, token, from_item = self.network.decode(x, paused.per_token[GENE_VECTORS], sequences)
        return Predictions(
            not_half(token), None if from_item is None else not_half(from_item), not_half(embedding)
        )  # fmt: skip

    def seen(self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None) -> tuple[Tensor, Tensor]:
        """Genes int64 [T] and values float32 [T] as the model reads them."""
        return self.on_device(batch.token), torch.from_numpy(np.ascontiguousarray(self.values(batch, hidden))).to(
            self.device
        )
