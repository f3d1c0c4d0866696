"""Geneformer, loaded: a folder of weights to activations and masked-gene losses, on CPU, CUDA or MPS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.items import CountItems, Items
from sae_genomics.models.base import FoundationModel, ModelInfo
from sae_genomics.models.geneformer.config import READS, describe, small_files
from sae_genomics.models.geneformer.folder import GeneformerFolder, read_folder
from sae_genomics.models.geneformer.packed import PackedBert, on_device
from sae_genomics.models.geneformer.reference import ReferenceGeneformer
from sae_genomics.models.geneformer.tokenise import RankTokeniser
from sae_genomics.models.geneformer.weights import LOSS_NAME, check_shapes, load_network, random_network, why_no_loss
from sae_genomics.models.hidden_tokens import HiddenTokenModel
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> FoundationModel:
    """See `sae_genomics.models.load_model`."""
    folder = small_files(model, cache_dir)
    made = ReferenceGeneformer if model.backend == "reference" else Geneformer
    return made(folder, describe(model, cache_dir), device, getattr(torch, model.compute_dtype))


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> Geneformer:
    """See `sae_genomics.models.untrained_model`."""
    folder = small_files(model, cache_dir)
    dtype = getattr(torch, model.compute_dtype)
    return Geneformer(folder, describe(model, cache_dir), device, dtype, untrained_seed=seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """See `sae_genomics.models.check_model`."""
    check_shapes(small_files(model, cache_dir))


def load_folder(folder: Path, *, device: str = "cpu", dtype: str = "float32") -> Geneformer:
    """Load a model folder without a run's config, for scripts and notebooks."""
    read = read_folder(Path(folder))
    return Geneformer(read, read.describe(Path(folder).name), torch.device(device), getattr(torch, dtype))


class Geneformer(HiddenTokenModel):
    """A Geneformer checkpoint, loaded.

    untrained_seed: random weights from that seed instead of the checkpoint's.
    """

    reads = READS
    loss_name = LOSS_NAME
    network: PackedBert

    def __init__(
        self,
        folder: GeneformerFolder,
        info: ModelInfo,
        device: torch.device,
        dtype: torch.dtype,
        *,
        untrained_seed: int | None = None,
    ):
        self.folder, self._tokeniser = folder, RankTokeniser(folder)
        self.mask_token = folder.dictionaries.special("<mask>")
        self.cls_token = folder.dictionaries.special("<cls>")
        if untrained_seed is None:
            self.why_no_loss = why_no_loss(folder, info.name)
        made = load_network(folder, dtype) if untrained_seed is None else random_network(folder, dtype, untrained_seed)
        widest = max(folder.config["intermediate_size"], 3 * folder.d_model)
        super().__init__(
            info,
            on_device(PackedBert(made), device),
            device,
            dtype,
            widest=widest,
            vocab_size=folder.config["vocab_size"],
        )

    def tokenise(self, items: Items, seed: int) -> Tokens:
        """The cells' tokens; see `sae_genomics.models.geneformer.tokenise`. seed: decides nothing here."""
        return self._tokeniser(self.items_read(items, CountItems))

    def speaks_for_item(self, batch: Tokens) -> npt.NDArray[np.bool_]:
        """`<cls>`, or, in a model without it, all genes."""
        return batch.token == self.cls_token if self.cls_token is not None else super().speaks_for_item(batch)
