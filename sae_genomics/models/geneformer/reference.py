"""Geneformer through transformers' own BertForMaskedLM, padded and with eager attention, behind the same interface.

Geneformer's package is not on the package index, and its models are BERT as transformers has it; so this is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sae_genomics.errors import UserError
from sae_genomics.items import CountItems, Items
from sae_genomics.models.base import FoundationModel, ModelInfo
from sae_genomics.models.editing import Paused
from sae_genomics.models.geneformer.config import READS
from sae_genomics.models.geneformer.folder import GeneformerFolder
from sae_genomics.models.geneformer.tokenise import RankTokeniser
from sae_genomics.models.geneformer.weights import LOSS_NAME, load_network, why_no_loss
from sae_genomics.models.hidden_tokens import hidden_losses
from sae_genomics.models.sequences import Sequences
from sae_genomics.tokens import Tokens

_ROWS_AT_ONCE = 256  # of scores over the vocabulary
Heard = Callable[[Tensor], Tensor | None]


class ReferenceGeneformer(FoundationModel):
    """A Geneformer checkpoint in transformers' own model."""

    reads = READS
    loss_name = LOSS_NAME
    hidden_share = 0.15

    def __init__(self, folder: GeneformerFolder, info: ModelInfo, device: torch.device, dtype: torch.dtype):
        self.info, self.device = info, device
        self._tokeniser = RankTokeniser(folder)
        self.mask_token = folder.dictionaries.special("<mask>")
        self.why_no_loss = why_no_loss(folder, info.name)
        made: Any = load_network(folder, dtype, "eager")
        self.network: Any = made.to(device).requires_grad_(False)

    def tokenise(self, items: Items, seed: int) -> Tokens:
        """The cells' tokens; see `sae_genomics.models.geneformer.tokenise`. seed: decides nothing here."""
        return self._tokeniser(self.items_read(items, CountItems))

    @torch.inference_mode()
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        padding = Sequences(batch.item_ptr, self.device, padded=True)
        heard = {layer: partial(_keep, found, layer, padding) for layer in layers}
        with self._listening(hook, heard):
            self._run(torch.from_numpy(batch.token).long(), padding)
        return found

    @torch.inference_mode()
    def masked_loss(
        self,
        batch: Tokens,
        hidden: npt.NDArray[np.bool_],
        hook: str,
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> npt.NDArray[np.float64]:
        if self.why_no_loss:
            raise UserError(self.why_no_loss)
        padding = Sequences(batch.item_ptr, self.device, padded=True)
        token = torch.from_numpy(batch.token).long()
        seen = torch.where(torch.from_numpy(hidden), self.mask_token, token)  # type: ignore[arg-type]
        heard = {layer: partial(_change, change, padding) for layer, change in (interventions or {}).items()}
        with self._listening(hook, heard):
            last = padding.pack(self._run(seen, padding))
        rows = torch.from_numpy(np.flatnonzero(hidden))
        return hidden_losses(self.network.cls, last[rows.to(self.device)], token, rows, _ROWS_AT_ONCE)

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        raise UserError("model.backend: reference cannot be edited; set model.backend to native")

    def _run(self, token: Tensor, padding: Sequences) -> Tensor:
        """The last block's output, padded. token: int64 [T], on the CPU."""
        rows = padding.pad(token.to(self.device)[:, None])[:, :, 0]
        assert padding.real is not None
        found: Tensor = self.network.bert(input_ids=rows, attention_mask=padding.real.long()).last_hidden_state
        return found

    @contextmanager
    def _listening(self, hook: str, heard: Mapping[int, Heard]) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, listener in heard.items():
                module = _module(self.network.bert.encoder.layer[layer], hook)
                stack.callback(module.register_forward_hook(partial(_relay, listener)).remove)
            yield


def _module(block: Any, hook: str) -> nn.Module:
    """The module whose output a hook names."""
    found: nn.Module = {
        "resid_post": block, "mlp_out": block.output.dense, "attn_out": block.attention.output.dense,
    }[hook]  # fmt: skip
    return found


def _relay(listener: Heard, module: Any, given: Any, output: Any) -> Any:
    if not isinstance(output, tuple):
        return listener(output)
    changed = listener(output[0])
    return None if changed is None else (changed, *output[1:])


def _keep(found: dict[int, Tensor], layer: int, padding: Sequences, x: Tensor) -> None:
    found[layer] = padding.pack(x).clone()


def _change(change: Callable[[Tensor], Tensor], padding: Sequences, x: Tensor) -> Tensor:
    return padding.pad(change(padding.pack(x)))
