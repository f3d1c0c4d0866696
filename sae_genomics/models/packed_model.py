"""What encoders that predict hidden tokens have in common (ESM2, Geneformer): packed rows, `<mask>`, cross-entropy."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sae_genomics.errors import UserError
from sae_genomics.models.base import FoundationModel, ModelInfo
from sae_genomics.models.cpu_products import tokens_at_once, use_kernels
from sae_genomics.models.sequences import Listener, Sequences, pieces_of
from sae_genomics.tokens import Tokens

_SCORES_AT_ONCE = 1 << 24  # in float64: 128 MiB


class PackedNetwork(nn.Module):
    """An encoder on packed rows. `forward` gives the output of the first blocks; `predict` the scores of all tokens."""

    @abstractmethod
    def forward(self, token: Tensor, sequences: Sequences, n_layers: int, listen: Listener) -> Tensor:
        """The output of the first `n_layers` blocks: [T, d_model]. token: int64 [T]."""

    @abstractmethod
    def predict(self, x: Tensor) -> Tensor:
        """Scores of all tokens, from outputs of the last block: [n, d_model] -> [n, vocabulary]."""


class PackedModel(FoundationModel):
    """A model whose linear layers and norms see the rows of all sequences, one after the other, and compute no padding."""

    hidden_share = 0.15
    outcome = "distribution"
    mask_token: int | None

    def __init__(
        self,
        info: ModelInfo,
        network: PackedNetwork,
        device: torch.device,
        dtype: torch.dtype,
        *,
        widest: int,
        vocab_size: int,
    ):
        """network: on the device already. widest: outputs of its widest layer, the head's not counted."""
        self.info, self.network, self.device = info, network, device
        use_kernels(network, device, dtype)
        if device.type == "cpu":
            self.piece_tokens = tokens_at_once(widest)
        self.scores_at_once = max(1, _SCORES_AT_ONCE // vocab_size)
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
        """Cross-entropy in nats of each hidden token, which the model sees as <mask>: float64 [T], 0 at other rows.

        interventions: layer -> function given that layer's activations at `hook` ([T, d_model]) and returning what the model goes
        on with. Raises UserError when the checkpoint has no head.
        """
        if self.why_no_loss:
            raise UserError(self.why_no_loss)
        changes = interventions or {}

        def change(at: str, layer: int, x: Tensor) -> Tensor:
            return changes[layer](x) if at == hook and layer in changes else x

        rows = torch.from_numpy(np.flatnonzero(hidden))
        sequences = self.sequences(batch)  # interventions are given all rows at once
        x = self.network(self.seen(batch, hidden), sequences, self.info.n_layers, change)[rows.to(self.device)]
        return hidden_losses(self.network.predict, x, torch.from_numpy(batch.token).long(), rows, self.scores_at_once)

    def seen(self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None) -> Tensor:
        """Token ids as the model reads them, <mask> where they are hidden: int64 [T]."""
        token = self._on_device(batch.token)
        if hidden is None or self.mask_token is None:
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


def hidden_losses(
    predict: Callable[[Tensor], Tensor], x: Tensor, token: Tensor, rows: Tensor, at_once: int
) -> npt.NDArray[np.float64]:
    """-log p of the true token at some rows, in float64: [T], 0 at other rows.

    predict: outputs of the last block -> scores. x: those outputs, [rows, d_model]. token: int64 [T]. rows: int64, both on the CPU.
    at_once: rows whose scores are made at once; a vocabulary may be large.
    """
    loss = torch.zeros(len(token), dtype=torch.float64)
    for some, part in zip(rows.split(at_once), x.split(at_once), strict=True):
        scores = predict(part).cpu().double()
        loss[some] = torch.nn.functional.cross_entropy(scores, token[some], reduction="none")
    return loss.numpy()


def mean_over(x: Tensor, sequences: Sequences, counts: npt.NDArray[np.bool_]) -> Tensor:
    """[sequences, n]: the mean of x [T, n] over those tokens of each sequence that count; zeros where none does."""
    usual = torch.from_numpy(counts).to(x)
    n = x.new_zeros(sequences.count).index_add(0, sequences.of_token, usual)
    sums = x.new_zeros(sequences.count, x.shape[1]).index_add(0, sequences.of_token, x * usual[:, None])
    return sums / n.clamp(min=1)[:, None]
