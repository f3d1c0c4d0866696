"""A language model, loaded: a folder of weights to activations and next-token losses, on CPU, CUDA or MPS."""

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
from sae_genomics.items import Items, TextItems
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.editing import Paused, Predictions, changed_at
from sae_genomics.models.huggingface import editing
from sae_genomics.models.huggingface.architectures import ARCHITECTURES
from sae_genomics.models.huggingface.config import READS, describe, small_files
from sae_genomics.models.huggingface.current import Pass
from sae_genomics.models.huggingface.folder import TextFolder, read_folder
from sae_genomics.models.huggingface.lean import make_lean
from sae_genomics.models.huggingface.packed import PackedDecoder
from sae_genomics.models.huggingface.tokenise import TextTokeniser, read_tokeniser, tokenise
from sae_genomics.models.huggingface.weights import check_shapes, load_network, random_network
from sae_genomics.models.packed_model import PackedModel
from sae_genomics.models.sequences import Listener, Sequences
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig

_CHUNK_BYTES = 256 << 20  # of logits at a time, when losses are computed


def load(model: ModelConfig, device: torch.device, cache_dir: Path | None) -> HuggingFace:
    """See `sae_genomics.models.load_model`."""
    folder = small_files(model, cache_dir)
    return HuggingFace(folder, describe(model, cache_dir), device, getattr(torch, model.compute_dtype))


def untrained(model: ModelConfig, device: torch.device, cache_dir: Path | None, seed: int) -> HuggingFace:
    """See `sae_genomics.models.untrained_model`."""
    folder = small_files(model, cache_dir)
    dtype = getattr(torch, model.compute_dtype)
    return HuggingFace(folder, describe(model, cache_dir), device, dtype, untrained_seed=seed)


def check(model: ModelConfig, cache_dir: Path | None) -> None:
    """See `sae_genomics.models.check_model`."""
    check_shapes(small_files(model, cache_dir))


def load_folder(
    folder: Path, *, device: str = "cpu", dtype: str = "float32", hook_modules: Mapping[str, str] | None = None
) -> HuggingFace:
    """Load a model folder without a run's config, for scripts and notebooks."""
    read = read_folder(Path(folder), hook_modules)
    return HuggingFace(read, read.describe(Path(folder).name), torch.device(device), getattr(torch, dtype))


class HuggingFace(PackedModel):
    """A causal decoder of transformers, loaded.

    untrained_seed: random weights from that seed instead of the checkpoint's.
    """

    reads = READS
    hidden_share = 1.0
    loss_name = "cross-entropy of the next token, in nats"
    outcome = "distribution"
    predicts_next = True
    network: PackedDecoder

    def __init__(
        self,
        folder: TextFolder,
        info: ModelInfo,
        device: torch.device,
        dtype: torch.dtype,
        *,
        untrained_seed: int | None = None,
    ):
        self.folder = folder
        if untrained_seed is None:
            made, has_head = load_network(folder, dtype)
        else:
            made, has_head = random_network(folder, dtype, untrained_seed), True
        if not has_head:
            self.why_no_loss = (
                f"{info.name} has no head, so its next-token loss cannot be measured; save it from AutoModelForCausalLM rather than "
                "AutoModel"
            )
        if device.type == "cpu":
            make_lean(made)
        network = PackedDecoder(made, folder.architecture, info.n_layers, info.d_model).eval()
        network.to(device)
        super().__init__(info, network, device, dtype, widest=_widest(made) if network.packed else None)
        if folder.architecture is not ARCHITECTURES.get(folder.config["model_type"]):
            network.probe(device)
        self._tokeniser: TextTokeniser | None = None
        self._reading = threading.Lock()

    @property
    def n_logits(self) -> int:
        """Word pieces that the head scores."""
        head = self.network.network.get_output_embeddings()
        return self.folder.numbers["vocab_size"] if head is None else int(head.weight.shape[0])

    def tokenise(self, items: Items, seed: int) -> Tokens:
        """The documents' tokens; see `sae_genomics.models.huggingface.tokenise`. seed: decides nothing here."""
        items = self.items_read(items, TextItems)
        with self._reading:
            self._tokeniser = self._tokeniser or read_tokeniser(self.folder)
        return tokenise(items, self._tokeniser)

    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        self.refuse_unknown_hook(hook)
        return super().forward_layers(batch, layers, hook)

    def given(self, batch: Tokens) -> tuple[Tensor]:
        return (self.on_device(batch.token),)

    def run(self, given: tuple[Tensor, ...], sequences: Sequences, n_layers: int, listen: Listener) -> None:
        self.network(*given, Pass(sequences, self.network.packed, listen, last=n_layers - 1))

    def predicted(self, batch: Tokens) -> npt.NDArray[np.bool_]:
        """All tokens but the first of each document, which nothing stands before."""
        found = np.ones(len(batch), dtype=bool)
        starts = batch.item_ptr[:-1]
        found[starts[starts < len(batch)]] = False
        return found

    @torch.inference_mode()
    def masked_loss(
        self,
        batch: Tokens,
        hidden: npt.NDArray[np.bool_],
        hook: str,
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Cross-entropy in nats of predicting each chosen token from those before it: float64 [T], 0 at other rows.

        hidden: the tokens whose loss is wanted; a causal model sees none of them when it predicts them. A document's first token has
        nothing before it, and 0. Raises UserError when the checkpoint has no head.
        """
        if self.why_no_loss:
            raise UserError(self.why_no_loss)
        self.refuse_unknown_hook(hook)
        token, sequences = self.on_device(batch.token), self.sequences(batch)
        rows = np.flatnonzero(hidden & self.predicted(batch))
        loss = np.zeros(len(batch))
        if not len(rows):
            return loss
        read = self.network(token, Pass(sequences, self.network.packed, changed_at(hook, interventions or {})))
        chunk = max(_CHUNK_BYTES // 4 // self.n_logits, 1)  # a vocabulary times all rows would not fit
        for start in range(0, len(rows), chunk):
            some = rows[start : start + chunk]
            at = torch.from_numpy(some).to(self.device)
            scores = self.network.head(read[at - 1], sequences).float()
            losses = torch.nn.functional.cross_entropy(scores, token[at], reduction="none")
            loss[some] = losses.double().cpu().numpy()
        return loss

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        """See `FoundationModel.pause`. hidden: hides nothing, for a causal model never sees what it predicts; it is kept for the caller."""
        return editing.pause(self, batch, layer, hook, hidden)

    def resume(
        self, paused: Paused, activations: Tensor | None = None, *, layers: Sequence[int] = (), predict: bool = True
    ) -> Predictions:
        return editing.resume(self, paused, activations, layers, predict)

    def refuse_unknown_hook(self, hook: str) -> None:
        """Raises UserError for a hook that neither the table of architectures nor the config places."""
        if hook not in self.info.hooks:
            raise UserError(
                f"model.hook: {self.info.name} has no {hook}; name its module in model.hook_modules.{hook}, or set model.hook to "
                f"{' or '.join(self.info.hooks)}"
            )


def _widest(network: torch.nn.Module) -> int:
    """Outputs of the widest linear layer, the head left out."""
    head = network.get_output_embeddings()  # type: ignore[operator]
    return max(
        (
            module.out_features
            for module in network.modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        ),
        default=1,
    )
