"""What both backends of Tahoe-x1 share: tokenising cells, and the loss at hidden expression values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.errors import UserError
from sae_genomics.items import CountItems, Items
from sae_genomics.models.base import FoundationModel
from sae_genomics.models.tx1_config import READS
from sae_genomics.models.tx1_tokenise import TokeniserSettings, tokenise
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    import torch

    from sae_genomics.models.base import Intervention


@dataclass(frozen=True)
class Outputs:
    """What a Tahoe-x1 model predicts.

    cell_emb: [cells, d_model].
    expr_preds: [T], predicted value of each token's gene, from the token itself ([T, n_outputs] where n_outputs > 1).
    mvc_output: [T], the same predicted from the cell embedding, or None for a model without that decoder.
    """

    cell_emb: torch.Tensor
    expr_preds: torch.Tensor
    mvc_output: torch.Tensor | None


class Tx1Model(FoundationModel):
    """A Tahoe-x1 checkpoint, loaded."""

    reads = READS
    hidden_share = 0.5
    loss_name = "mean squared error of hidden values, in bins squared"
    vocab: dict[str, int]
    """Gene name -> vocabulary id."""
    special_ids: dict[str, int]
    """Name of a special token -> vocabulary id."""
    drug_ids: dict[str, int]
    """Drug -> row of the chemical encoder's table; empty where no drug is used."""
    tokeniser: TokeniserSettings

    def tokenise(self, items: Items, seed: int) -> Tokens:
        """Tokens of a batch of cells; see `tx1_tokenise.tokenise`. A drug that the model does not know stands for no drug.

        `per_token["value"]`: float32 [T], what the model is given. `per_item["drug"]`: int64 [cells], where drugs are used.
        Raises UserError when drugs and model do not go together.
        """
        items = self.items_read(items, CountItems)
        if items.drugs is not None and not self.drug_ids:
            raise UserError(f"model {self.info.name} was loaded without a chemical encoder; leave model.drug_key out")
        if items.drugs is None and self.drug_ids:
            raise UserError(
                f"model {self.info.name} expects a drug for each cell; name the obs column in model.drug_key"
            )
        drugs = None
        if items.drugs is not None:
            unknown = self.drug_ids["<pad>"]
            names, inverse = np.unique(np.asarray(items.drugs, dtype=str), return_inverse=True)
            drugs = np.array([self.drug_ids.get(name, unknown) for name in names], dtype=np.int64)[inverse]
        return tokenise(items.counts, items.token, items.rows, settings=self.tokeniser, seed=seed, drugs=drugs)

    @abstractmethod
    def outputs(
        self,
        batch: Tokens,
        *,
        masked: npt.NDArray[np.bool_] | None = None,
        hook: str = "resid_post",
        interventions: Mapping[int, Intervention] | None = None,
    ) -> Outputs:
        """The model's predictions.

        masked: bool [T], tokens whose value is hidden from the model, as in its training. interventions: as for `masked_loss`.
        """

    def masked_loss(
        self,
        batch: Tokens,
        hidden: npt.NDArray[np.bool_],
        hook: str,
        interventions: Mapping[int, Intervention] | None = None,
    ) -> npt.NDArray[np.float64]:
        """(predicted value - value)^2 at each hidden token."""
        predicted = self.outputs(batch, masked=hidden, hook=hook, interventions=interventions).expr_preds
        at = np.flatnonzero(hidden)
        error = predicted.float().cpu().numpy()[at].astype(np.float64) - batch.per_token["value"][at]
        loss = np.zeros(len(batch))
        loss[at] = error**2
        return loss
