"""What encoders that predict hidden tokens have in common (ESM2, Geneformer): `<mask>`, and the cross-entropy there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.block_model import BlockModel, BlockNetwork
from sae_genomics.models.editing import Paused, Predictions, changed_at, not_half
from sae_genomics.models.sequences import Listener, Sequences, mean_over
from sae_genomics.tokens import Tokens

_SCORES_AT_ONCE = 1 << 24  # in float64: 128 MiB


class TokenNetwork(BlockNetwork):
    """An encoder on packed rows, with a head that scores all tokens."""

    head: nn.Module
    final_norm: nn.Module
    """Between the last block and the head; `nn.Identity` where there is none."""

    @abstractmethod
    def embed(self, token: Tensor, sequences: Sequences) -> Tensor:
        """What enters the first block: [T, d_model]. token: int64 [T]."""

    def forward(self, token: Tensor, sequences: Sequences, n_layers: int, listen: Listener) -> Tensor:
        """The output of the first `n_layers` blocks: [T, d_model]. token: int64 [T]."""
        return self.encode(self.embed(token, sequences), sequences, range(n_layers), listen)

    def predict(self, x: Tensor) -> Tensor:
        """Scores of all tokens, from outputs of the last block: [n, d_model] -> [n, vocabulary]."""
        return self.head(self.final_norm(x))  # type: ignore[no-any-return]


class HiddenTokenModel(BlockModel):
    """A model that is trained to predict tokens where it sees `<mask>`."""

    hidden_share = 0.15
    outcome = "distribution"
    mask_token: int | None
    network: TokenNetwork

    def __init__(
        self,
        info: ModelInfo,
        network: TokenNetwork,
        device: torch.device,
        dtype: torch.dtype,
        *,
        widest: int,
        vocab_size: int,
    ):
        """network: on the device already. widest: outputs of its widest layer, the head's not counted."""
        super().__init__(info, network, device, dtype, widest=widest)
        self.scores_at_once = max(1, _SCORES_AT_ONCE // vocab_size)

    def given(self, batch: Tokens) -> tuple[Tensor]:
        return (self.seen(batch, None),)

    def run(self, given: tuple[Tensor, ...], sequences: Sequences, n_layers: int, listen: Listener) -> None:
        self.network(*given, sequences, n_layers, listen)

    def embed(
        self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None, sequences: Sequences
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self.network.embed(self.seen(batch, hidden), sequences), {}

    def decode(self, x: Tensor, paused: Paused, sequences: Sequences) -> Predictions:
        x = self.network.final_norm(x)
        token = None if self.why_no_loss else not_half(self.network.head(x))
        return Predictions(token, None, mean_over(not_half(x), sequences, self.speaks_for_item(paused.batch)))

    def speaks_for_item(self, batch: Tokens) -> npt.NDArray[np.bool_]:
        """[T], tokens whose mean is the item's embedding: all that are not special."""
        return ~batch.special

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
        rows = torch.from_numpy(np.flatnonzero(hidden))
        sequences = self.sequences(batch)  # interventions are given all rows at once
        change = changed_at(hook, interventions or {})
        x = self.network(self.seen(batch, hidden), sequences, self.info.n_layers, change)[rows.to(self.device)]
        return hidden_losses(self.network.predict, x, torch.from_numpy(batch.token).long(), rows, self.scores_at_once)

    def seen(self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None) -> Tensor:
        """Token ids as the model reads them, <mask> where they are hidden: int64 [T]."""
        token = self.on_device(batch.token)
        if hidden is None or self.mask_token is None:
            return token
        return torch.where(torch.from_numpy(hidden).to(self.device), self.mask_token, token)


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
