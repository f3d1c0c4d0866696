"""A model that is stopped at a hook, and what it predicts when it goes on: the interface that interventions need of a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Paused:
    """All that a model needs to go on from a hook. Rows are those of `batch`, packed, never padded."""

    batch: Tokens
    layer: int
    hook: str
    activations: torch.Tensor
    """[T, d_model] in the compute dtype: what the layer has at the hook. The edits start from these."""
    hidden: npt.NDArray[np.bool_] | None = None
    """[T], tokens whose content is hidden from the model, as in its training; None hides nothing"""
    stream: torch.Tensor | None = None
    """[T, d_model], what an `attn_out` or `mlp_out` is added to; None at `resid_post`, and where a family runs the layer again"""
    per_token: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """[T, ...] of one family alone, such as the genes' own vectors that Tahoe-x1's decoder needs"""

    def take(self, sequences: npt.ArrayLike) -> Paused:
        """The same of some sequences, in that order; one that is named twice is there twice. sequences: int [n]."""
        import torch

        chosen = np.asarray(sequences, dtype=np.int64)
        rows = self.batch.rows_of(chosen)
        at = torch.from_numpy(rows).to(self.activations.device)
        return Paused(
            self.batch.take(chosen), self.layer, self.hook, self.activations[at],
            None if self.hidden is None else self.hidden[rows],
            None if self.stream is None else self.stream[at],
            {name: values[at] for name, values in self.per_token.items()},
        )  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """What a model predicts of a batch. Rows are the batch's. Differentiable where gradients are on."""

    token: torch.Tensor | None
    """float32. A family that predicts values: [T], the value of each token's unit (Tahoe-x1's expression decoder, in bins).
    A family that predicts a distribution: [T, vocabulary] logits. None where the checkpoint has no head, or none was asked for."""
    from_item: torch.Tensor | None
    """float32 [T], the value of each token's unit as predicted from the item's embedding (Tahoe-x1's MVC decoder); None without one"""
    embedding: torch.Tensor | None
    """float32 [sequences, d_model], the item's embedding: `<cls>` for cells, the mean over residues for proteins"""
    layers: Mapping[int, torch.Tensor] = field(default_factory=dict)
    """layer -> [T, d_model] at the same hook, of the later layers that were asked for"""


def deepest_layer(paused: Paused, layers: Sequence[int], predict: bool, n_layers: int) -> int:
    """The last layer that `resume` computes. Raises ValueError for a layer that does not come after the paused one."""
    if any(not paused.layer < layer < n_layers for layer in layers):
        raise ValueError(f"layers {list(layers)} are not all after layer {paused.layer} and below {n_layers}")
    return n_layers - 1 if predict else max(layers, default=paused.layer)


def not_half(x: torch.Tensor) -> torch.Tensor:
    """In float32, or in float64 where that is what was computed in."""
    import torch

    return x if x.dtype == torch.float64 else x.float()


def kept_at(
    hook: str, layers: Sequence[int]
) -> tuple[dict[int, torch.Tensor], Callable[[str, int, torch.Tensor], torch.Tensor]]:
    """Where activations of some layers at a hook are kept (layer -> [T, d_model]), and the listener that puts them there."""
    found: dict[int, torch.Tensor] = {}
    wanted = set(layers)

    def listen(at: str, layer: int, x: torch.Tensor) -> torch.Tensor:
        if at == hook and layer in wanted:
            found[layer] = x
        return x

    return found, listen


def changed_at(
    hook: str, changes: Mapping[int, Callable[[torch.Tensor], torch.Tensor]]
) -> Callable[[str, int, torch.Tensor], torch.Tensor]:
    """The listener that changes activations at a hook. changes: layer -> function of that layer's activations, [T, d_model]."""

    def listen(at: str, layer: int, x: torch.Tensor) -> torch.Tensor:
        return changes[layer](x) if at == hook and layer in changes else x

    return listen


def unheard(hook: str, layer: int, x: torch.Tensor) -> torch.Tensor:
    """The listener that changes nothing."""
    return x
