"""What every model family offers: items to tokens, activations of any layers, and its own loss at hidden tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from sae_genomics.errors import UserError
from sae_genomics.items import CountItems, Items, SequenceItems, TextItems
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    import torch

    Intervention = Callable[[torch.Tensor], torch.Tensor]

AnyItems = TypeVar("AnyItems", CountItems, SequenceItems, TextItems)
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


class CellTokeniser(Protocol):
    """What `prepare` must know of how a family that reads cells wants its tokens."""

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence, special ones included."""

    @property
    def n_special(self) -> int:
        """Special tokens that each cell has, such as `<cls>`; a drug's is not counted."""


class FoundationModel(ABC):
    """A loaded foundation model."""

    reads: ClassVar[str]
    """Name of the data kind: cells, proteins, text."""
    hidden_share: ClassVar[float]
    """Share of the tokens that are hidden when the loss is measured, special ones not counted: as in the model's training."""
    loss_name: ClassVar[str]
    """What `masked_loss` is, with its unit, for a reader."""
    info: ModelInfo
    mask_token: int | None = None
    """Vocabulary id that stands where a token is hidden; None where the token stays visible and only its value is hidden."""
    why_no_loss: str = ""
    """Why `masked_loss` cannot be measured, such as a checkpoint without its head; empty where it can."""
    piece_tokens: int | None = None
    """A batch is best of so many tokens, whatever its sequences' lengths, and several threads may compute one each. None where padding
    is computed, so that sequences of like length belong together."""

    outcome: ClassVar[str] = ""
    """What `resume` predicts of a token: `value` (one number), `distribution` (logits), or empty where the family cannot be edited."""

    predicts_next: ClassVar[bool] = False
    """Whether a token is predicted from those before it alone: nothing is ever hidden, and an edit at a token shows from the next one on."""

    def predicted(self, batch: Tokens) -> npt.NDArray[np.bool_]:
        """[T], tokens that the model predicts at all: all but what has no context, such as a text's first token."""
        return np.ones(len(batch), dtype=bool)

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        """Run the model up to a hook, without gradients. hidden: bool [T], tokens whose content is hidden, as for `masked_loss`.

        No tensor of the result is one of inference mode: a later backward pass may use them.
        Raises UserError for a family, backend or checkpoint that cannot be edited.
        """
        raise UserError(f"model.family: {self.info.family} cannot be edited; set causal.enabled to false")

    def resume(
        self,
        paused: Paused,
        activations: torch.Tensor | None = None,
        *,
        layers: Sequence[int] = (),
        predict: bool = True,
    ) -> Predictions:
        """Go on from the hook, with other activations there: [T, d_model], the paused ones where None.

        activations: in any floating dtype; they are rounded to the compute dtype. They are not written to.
        layers: later layers whose activations at the same hook are wanted. predict: False stops after the deepest of them.
        With gradients on, and where `activations` asks for them, the results are differentiable with respect to it, through torch's
        own functions. Otherwise kernels compute them. The weights need no gradient. Callers that want none use `torch.no_grad()`.
        Raises ValueError for a layer that does not come after the paused one.
        """
        raise UserError(f"model.family: {self.info.family} cannot be edited; set causal.enabled to false")

    def items_read(self, items: Items, kind: type[AnyItems]) -> AnyItems:
        """The items, which are of the type that the family reads. Raises UserError for others."""
        if not isinstance(items, kind):
            raise UserError(
                f"model.family: {self.info.family} reads {self.reads}; set data.kind to {self.reads}, or another model.family"
            )
        return items

    @property
    def padding_share(self) -> float | None:
        """Share of all tokens computed since the model was loaded that were padding; None where that is not counted."""
        return None

    @abstractmethod
    def tokenise(self, items: Items, seed: int) -> Tokens:
        """Tokens of a batch of items. An item's tokens depend on the item, its row and the seed alone.

        Raises UserError when items and model do not go together.
        """

    @abstractmethod
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, torch.Tensor]:
        """Activations of the chosen layers from one forward pass, which stops after the deepest of them.

        Returns layer -> [T, d_model] in the rows' order, on the model's device, in the compute dtype. The tensors are
        the caller's; the pass does not write to them again.
        """

    @abstractmethod
    def masked_loss(
        self,
        batch: Tokens,
        hidden: npt.NDArray[np.bool_],
        hook: str,
        interventions: Mapping[int, Intervention] | None = None,
    ) -> npt.NDArray[np.float64]:
        """The model's own loss at hidden tokens, without a gradient: float64 [T], 0 at all other rows.

        hidden: bool [T], tokens whose content is hidden from the model, as in its training.
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
