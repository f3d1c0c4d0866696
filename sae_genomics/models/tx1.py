"""Tahoe-x1, native backend: a release folder to activations on CPU, CUDA or MPS, without llm-foundry or flash-attn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.errors import UserError
from sae_genomics.kernels.choice import plain_asked
from sae_genomics.models import tx1_editing
from sae_genomics.models.base import FoundationModel, ModelInfo
from sae_genomics.models.checkpoint import check_shapes, load_weights
from sae_genomics.models.cpu_products import tokens_at_once, use_kernels
from sae_genomics.models.editing import Paused, Predictions, changed_at, kept_at
from sae_genomics.models.sequences import pieces_of
from sae_genomics.models.tx1_compiled import compile_blocks
from sae_genomics.models.tx1_config import (
    PREFIX,
    Release,
    describe,
    read_release,
    small_files,
)
from sae_genomics.models.tx1_init import initialise
from sae_genomics.models.tx1_model import Outputs, Tx1Model
from sae_genomics.models.tx1_network import Layout, Tx1Network
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> FoundationModel:
    """See `sae_genomics.models.load_model`."""
    release, info = small_files(model, cache_dir), describe(model, cache_dir)
    if model.backend == "reference":
        from sae_genomics.models.tx1_reference import ReferenceTx1

        return ReferenceTx1(release, info, device, getattr(torch, model.compute_dtype))
    return NativeTx1(release, info, device, getattr(torch, model.compute_dtype), compile=model.compile)


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> FoundationModel:
    """See `sae_genomics.models.untrained_model`. In plain PyTorch, whatever `model.backend` says."""
    release, info = small_files(model, cache_dir), describe(model, cache_dir)
    return NativeTx1(release, info, device, getattr(torch, model.compute_dtype), untrained_seed=seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """See `sae_genomics.models.check_model`. The reference backend judges its checkpoints itself."""
    if model.backend == "native":
        release = small_files(model, cache_dir)
        with torch.device("meta"):
            network = Tx1Network(release.config)
        check_shapes(network, release.folder / "model.safetensors", prefix=PREFIX, ignore=_not_needed(release))


def _not_needed(release: Release) -> tuple[str, ...]:
    """A checkpoint trained with drugs serves without them too."""
    return () if release.config.chem else (f"{PREFIX}chem_encoder.",)


def load_folder(
    folder: Path, *, with_drugs: bool = False, device: str = "cpu", dtype: str = "float32", compile: bool = False
) -> NativeTx1:
    """Load a release folder without a run's config, for scripts and notebooks."""
    release = read_release(Path(folder), with_drugs=with_drugs)
    return NativeTx1(
        release, release.describe(Path(folder).name), torch.device(device), getattr(torch, dtype), compile=compile
    )


class NativeTx1(Tx1Model):
    """A Tahoe-x1 checkpoint, loaded.

    untrained_seed: random weights from that seed instead of the checkpoint's.
    """

    outcome = "value"

    def __init__(
        self,
        release: Release,
        info: ModelInfo,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compile: bool = False,
        untrained_seed: int | None = None,
    ):
        self.info = info
        self.vocab = release.vocab
        self.special_ids = release.special_ids
        self.drug_ids = release.drug_ids
        self.tokeniser = release.tokeniser
        self.device = device
        with torch.device("meta"):
            self.network = Tx1Network(release.config)
        if untrained_seed is None:
            weights = release.folder / "model.safetensors"
            load_weights(self.network, weights, prefix=PREFIX, ignore=_not_needed(release), device=device, dtype=dtype)
        else:
            initialise(self.network, untrained_seed, device, dtype)
        self.network.eval().requires_grad_(False)
        use_kernels(self.network, device, dtype)
        if compile and not plain_asked("tx1_compiled"):  # no kernel of ours, and yet a fast path
            compile_blocks(self.network, device)
        if device.type == "cpu":
            self.piece_tokens = tokens_at_once(max(release.config.d_mlp, 3 * release.config.d_model))

    @torch.inference_mode()
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        bounds = pieces_of(batch.item_ptr, self.piece_tokens)
        pieces = [batch] if len(bounds) < 2 else [batch.take(np.arange(*each)) for each in bounds]
        if len(pieces) == 1:
            return self._capture(batch, layers, hook)
        dtype = self.network.flag_encoder.weight.dtype
        found = {layer: torch.empty(len(batch), self.info.d_model, dtype=dtype) for layer in layers}
        start = 0
        for piece in pieces:
            for layer, rows in self._capture(piece, layers, hook).items():
                found[layer][start : start + len(piece)] = rows
            start += len(piece)
        return found

    def _capture(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        found, listen = kept_at(hook, layers)
        layout, gene, value, _ = self.inputs(batch, None)
        _, x = self.network.embed(gene, value, layout, None, self.drug(batch))
        self.network.encode(x, layout, None, max(layers) + 1, listen)
        return {layer: found[layer] for layer in layers}

    @torch.inference_mode()
    def outputs(
        self,
        batch: Tokens,
        *,
        masked: npt.NDArray[np.bool_] | None = None,
        hook: str = "resid_post",
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> Outputs:
        listen = changed_at(hook, interventions) if interventions else None
        layout, gene, value, hidden = self.inputs(batch, masked)
        gene_vectors, x = self.network.embed(gene, value, layout, hidden, self.drug(batch))
        x = self.network.encode(x, layout, hidden, self.info.n_layers, listen)
        return Outputs(*self.network.decode(x, gene_vectors, layout))

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        if self.network.config.decoder_outputs != 1:
            raise UserError(
                f"model {self.info.name} predicts several numbers for each gene; set causal.enabled to false"
            )
        return tx1_editing.pause(self, batch, layer, hook, hidden)

    def resume(
        self, paused: Paused, activations: Tensor | None = None, *, layers: Sequence[int] = (), predict: bool = True
    ) -> Predictions:
        return tx1_editing.resume(self, paused, activations, layers, predict)

    def inputs(
        self, batch: Tokens, masked: npt.NDArray[np.bool_] | None
    ) -> tuple[Layout, Tensor, Tensor, Tensor | None]:
        """Where the cells begin, their genes int64 [T], values float32 [T] and which of these are hidden, bool [T]."""
        gene = torch.from_numpy(batch.token).to(self.device).long()
        value = torch.from_numpy(batch.per_token["value"]).to(self.device)
        return self.layout(batch), gene, value, self.on_device(masked)

    def layout(self, batch: Tokens) -> Layout:
        """Where the cells begin."""
        # a kernel launch costs nothing beside a cell's attention on a CPU, and much of it on an accelerator
        return Layout(torch.from_numpy(batch.item_ptr), self.device, grouped=self.device.type == "cpu")

    def on_device(self, masked: npt.NDArray[np.bool_] | None) -> Tensor | None:
        """A mask of tokens, or None."""
        return None if masked is None else torch.from_numpy(masked).to(self.device)

    def drug(self, batch: Tokens) -> Tensor | None:
        """Each cell's row in the chemical encoder's table: int64 [cells]; None where no drug is used."""
        drug = batch.per_item.get("drug")
        return None if drug is None else torch.from_numpy(drug).to(self.device)
