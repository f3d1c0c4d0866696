"""ESM2, loaded: a folder of weights to activations and masked-residue losses, on CPU, CUDA or MPS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sae_genomics.items import Items, SequenceItems
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.esm2.config import READS, describe, small_files
from sae_genomics.models.esm2.folder import Esm2Folder, read_folder
from sae_genomics.models.esm2.packed import PackedEsm
from sae_genomics.models.esm2.tokenise import tokenise
from sae_genomics.models.esm2.weights import check_shapes, load_network, random_network
from sae_genomics.models.hidden_tokens import HiddenTokenModel
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> Esm2:
    """See `sae_genomics.models.load_model`."""
    folder = small_files(model, cache_dir)
    return Esm2(folder, describe(model, cache_dir), device, getattr(torch, model.compute_dtype))


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> Esm2:
    """See `sae_genomics.models.untrained_model`."""
    folder = small_files(model, cache_dir)
    dtype = getattr(torch, model.compute_dtype)
    return Esm2(folder, describe(model, cache_dir), device, dtype, untrained_seed=seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """See `sae_genomics.models.check_model`."""
    check_shapes(small_files(model, cache_dir))


def load_folder(folder: Path, *, device: str = "cpu", dtype: str = "float32") -> Esm2:
    """Load a model folder without a run's config, for scripts and notebooks."""
    read = read_folder(Path(folder))
    return Esm2(read, read.describe(Path(folder).name), torch.device(device), getattr(torch, dtype))


class Esm2(HiddenTokenModel):
    """An ESM2 checkpoint, loaded.

    untrained_seed: random weights from that seed instead of the checkpoint's.
    """

    reads = READS
    loss_name = "cross-entropy of hidden residues, in nats"
    network: PackedEsm

    def __init__(
        self,
        folder: Esm2Folder,
        info: ModelInfo,
        device: torch.device,
        dtype: torch.dtype,
        *,
        untrained_seed: int | None = None,
    ):
        self.folder = folder
        self.mask_token: int = folder.token_id("<mask>")
        if not folder.has_head and untrained_seed is None:
            self.why_no_loss = f"{info.name} has no lm_head, so its masked loss cannot be measured; save it from EsmForMaskedLM rather than EsmModel"
        made = load_network(folder, dtype) if untrained_seed is None else random_network(folder, dtype, untrained_seed)
        network = PackedEsm(made).eval().requires_grad_(False)
        if network.inv_freq is not None:
            network.inv_freq = network.inv_freq.to(device)
        widest = max(folder.config["intermediate_size"], 3 * folder.d_model)
        super().__init__(
            info, network.to(device), device, dtype, widest=widest, vocab_size=int(folder.config["vocab_size"])
        )

    def tokenise(self, items: Items, seed: int) -> Tokens:
        """The proteins' tokens; see `sae_genomics.models.esm2.tokenise`. seed: decides nothing here."""
        return tokenise(self.items_read(items, SequenceItems), self.folder)
