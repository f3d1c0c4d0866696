"""What every model family offers: tokens in, activations of any layers out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.data.tokenise import TokeniserSettings, Tokens, tokenise
from sae_genomics.errors import UserError

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix

    Intervention = Callable[[torch.Tensor], torch.Tensor]

HOOKS = ("resid_post", "mlp_out", "attn_out")


@dataclass(frozen=True)
class ModelInfo:
    """What can be said about a model without reading its weights.

    identity: changes whenever the checkpoint does; part of every fingerprint.
    n_parameters: 0 where it is not known before the download.
    revision: commit of a published model's weights; None for a local folder, and until the commit is known.
    """

    family: str
    name: str
    n_layers: int
    d_model: int
    n_heads: int
    max_length: int
    n_parameters: int
    identity: str
    hooks: tuple[str, ...] = HOOKS
    revision: str | None = None


@dataclass(frozen=True)
class Outputs:
    """What a model predicts.

    cell_emb: [cells, d_model].
    expr_preds: [T], predicted value of each token's gene, from the token itself ([T, n_outputs] where n_outputs > 1).
    mvc_output: [T], the same predicted from the cell embedding, or None for a model without that decoder.
    """

    cell_emb: torch.Tensor
    expr_preds: torch.Tensor
    mvc_output: torch.Tensor | None


class CellModel(ABC):
    """A loaded foundation model.

    vocab: name -> id of gene tokens only. special_ids: name -> id of the others. drug_ids: drug -> row of the chemical
    encoder's table; empty when no drug is used. piece_tokens: a batch is best of so many tokens, whatever its cells'
    lengths, and several threads may have one each computed; None where padding is computed, so that cells of like length
    belong together.
    """

    info: ModelInfo
    vocab: dict[str, int]
    special_ids: dict[str, int]
    drug_ids: dict[str, int]
    tokeniser: TokeniserSettings
    piece_tokens: int | None = None

    def tokenise(
        self,
        counts: csr_matrix,
        gene_ids: npt.NDArray[np.integer],
        rows: npt.NDArray[np.integer],
        seed: int,
        drugs: Sequence[str] | None = None,
    ) -> Tokens:
        """Tokens of a batch of cells; see `sae_genomics.data.tokenise.tokenise`.

        drugs: name of each cell's drug; names the model does not know stand for no drug. Raises UserError when drugs
        and model do not go together.
        """
        if drugs is not None and not self.drug_ids:
            raise UserError(f"model {self.info.name} was loaded without a chemical encoder; leave model.drug_key out")
        if drugs is None and self.drug_ids:
            raise UserError(
                f"model {self.info.name} expects a drug for each cell; name the obs column in model.drug_key"
            )
        ids = None
        if drugs is not None:
            unknown = self.drug_ids["<pad>"]
            names, inverse = np.unique(np.asarray(drugs, dtype=str), return_inverse=True)
            ids = np.array([self.drug_ids.get(name, unknown) for name in names], dtype=np.int64)[inverse]
        return tokenise(counts, gene_ids, rows, settings=self.tokeniser, seed=seed, drugs=ids)

    @abstractmethod
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, torch.Tensor]:
        """Activations of the chosen layers from one forward pass, which stops after the deepest of them.

        Returns layer -> [T, d_model] in the rows' order, on the model's device, in the compute dtype. The tensors are
        the caller's; the pass does not write to them again.
        """

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

        masked: bool [T], tokens whose value is hidden from the model, as in its training.
        interventions: layer -> function given that layer's activations at `hook` ([T, d_model]) and returning what the
            model goes on with.
        """


def resolve_layers(wanted: str | Sequence[int], info: ModelInfo) -> list[int]:
    """The list of layers that `model.layers` stands for. Raises UserError for one the model does not have."""
    if isinstance(wanted, str):
        return list(range(info.n_layers))
    beyond = [layer for layer in wanted if not 0 <= layer < info.n_layers]
    if beyond:
        raise UserError(
            f"model.layers: layer {beyond[0]} is out of range; {info.name} has {info.n_layers} layers, "
            f"0 to {info.n_layers - 1} (or write all)"
        )
    return list(wanted)


class FoundationModel(ABC):
    """Placeholder until the shared interface is merged."""

    reads: str
    info: ModelInfo
    piece_tokens: int | None = None
    hidden_share: float
    loss_name: str
