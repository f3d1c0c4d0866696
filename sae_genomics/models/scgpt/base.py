"""What both ways to compute scGPT share: tokens, the loss at hidden values, and the form of the predictions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sae_genomics.items import CountItems, Items
from sae_genomics.models.base import FoundationModel
from sae_genomics.models.scgpt.config import READS
from sae_genomics.models.scgpt.folder import ScgptFolder
from sae_genomics.models.scgpt.tokenise import tokenise
from sae_genomics.tokens import Tokens


@dataclass(frozen=True)
class Outputs:
    """What scGPT predicts, in the compute dtype."""

    cell_emb: Tensor
    """[cells, d_model], `<cls>` after the last block. Its own embedding task divides it by its length."""
    predicted: Tensor
    """[T], the value of each token's gene, in bins, from the token itself (`mlm_output`)."""
    from_cell: Tensor | None
    """[T], the same from the cell's embedding (`mvc_output`); None where the checkpoint has no such decoder."""


class ScgptModel(FoundationModel):
    """What both backends share: tokens of cells, and the loss of hidden values."""

    reads = READS
    hidden_share = 0.5  # the mean of the published models' mask_ratio: 0.25, 0.5 or 0.75
    loss_name = "mean squared error of hidden values, in bins squared"
    folder: ScgptFolder

    def tokenise(self, items: Items, seed: int) -> Tokens:
        """Tokens of a batch of cells; see `sae_genomics.models.scgpt.tokenise`. Raises UserError for items of another kind."""
        return tokenise(self.items_read(items, CountItems), self.folder.tokeniser, seed)

    @abstractmethod
    def outputs(
        self,
        batch: Tokens,
        *,
        masked: npt.NDArray[np.bool_] | None = None,
        hook: str = "resid_post",
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> Outputs:
        """The model's predictions. masked: bool [T], tokens whose value is hidden. interventions: as for `masked_loss`."""

    def masked_loss(
        self,
        batch: Tokens,
        hidden: npt.NDArray[np.bool_],
        hook: str,
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """(predicted value - value)^2 at each hidden token, which the model sees with `mask_value` for its value."""
        predicted = self.outputs(batch, masked=hidden, hook=hook, interventions=interventions).predicted
        error = predicted.double().cpu().numpy() - batch.per_token["value"]
        return np.where(hidden, error**2, 0.0)

    def values(self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float32]:
        """Values as the model reads them, `mask_value` where they are hidden: [T]."""
        value: npt.NDArray[np.float32] = batch.per_token["value"]
        return value if hidden is None else np.where(hidden, np.float32(self.folder.tokeniser.mask_value), value)
