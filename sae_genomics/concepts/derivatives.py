"""What an item's prediction gains when a direction is added at the tokens of a concept: first order, one backward pass for many items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.concepts.resampling import cells_of
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    import torch

    from sae_genomics.models.base import FoundationModel

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Asked:
    """What is asked of a batch of sequences. pair: int64 [sequences], whose target a sequence belongs to. target: bool [T], tokens whose
    prediction counts; they are hidden from the model. moved: bool [T], tokens at which the direction is added."""

    tokens: Tokens
    pair: Int64
    target: Bool
    moved: Bool


def gradients(model: FoundationModel, asked: Asked, layer: int, hook: str, n_pairs: int) -> npt.NDArray[np.float64]:
    """Gradient of each pair's mean prediction over its targets, summed over the tokens that are moved: float64 [pairs, d_model].

    The prediction is the value where the model predicts values, and the log-probability of the token that stands there where it predicts a
    distribution. Times a vector this is the change of the prediction per unit step along the vector (TCAV's directional
    derivative: Kim et al. 2018, ICML, equation 1). NaN for a pair without a target.
    """
    import torch

    paused = model.pause(asked.tokens, layer, hook, asked.target)
    pair = np.repeat(asked.pair, asked.tokens.lengths)
    rows = np.flatnonzero(asked.target)
    n_targets = np.bincount(pair[rows], minlength=n_pairs)
    x = paused.activations.detach().float().requires_grad_()
    with torch.enable_grad():
        predicted = model.resume(paused, x.to(paused.activations.dtype)).token
        if predicted is None:
            return np.full((n_pairs, x.shape[1]), np.nan)
        chosen = _predictions(predicted, asked.tokens.token, rows)
        weight = torch.from_numpy(1.0 / np.maximum(n_targets, 1)[pair[rows]]).to(chosen)
        (gradient,) = torch.autograd.grad((weight * chosen).sum(), x)
    moved = np.flatnonzero(asked.moved)
    total = torch.zeros(n_pairs, x.shape[1], dtype=torch.float64, device=gradient.device)
    total.index_add_(0, torch.from_numpy(pair[moved]).to(gradient.device), gradient[torch.from_numpy(moved)].double())
    found: npt.NDArray[np.float64] = total.cpu().numpy()
    found[n_targets == 0] = np.nan
    return found


def _predictions(predicted: torch.Tensor, token: npt.NDArray[np.int32], rows: Int64) -> torch.Tensor:
    """Of each row: the value, or the log-probability of its token."""
    import torch

    at = torch.from_numpy(rows).to(predicted.device)
    if predicted.ndim == 1:
        return predicted[at]
    own = torch.from_numpy(token[rows].astype(np.int64)).to(predicted.device)
    return torch.log_softmax(predicted[at].float(), dim=1)[torch.arange(len(rows), device=own.device), own]


@dataclass(frozen=True)
class Directional:
    """Of each concept and of each null vector. share, mean: float64 [concepts]; share_null, mean_null: float64 [concepts, draws]."""

    share: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    share_null: npt.NDArray[np.float64]
    mean_null: npt.NDArray[np.float64]


def directional(
    gradient: npt.NDArray[np.float64],
    concept: Int64,
    group: Int64,
    vectors: npt.NDArray[np.floating],
    null: npt.NDArray[np.floating],
) -> Directional:
    """Share of positive derivatives and mean derivative over groups, of each concept's own vector and of null vectors on the same items.

    gradient: [pairs, d]. concept, group: int64 [pairs]. vectors: [concepts, d]. null: [draws, d]. Unit vectors.
    """
    known = np.isfinite(gradient[:, 0]) if gradient.shape[1] else np.zeros(len(gradient), bool)
    gradient, concept, group = gradient[known], concept[known], group[known]
    own = np.einsum("pd,pd->p", gradient, np.asarray(vectors, np.float64)[concept])
    values = np.column_stack([own, gradient @ np.asarray(null, np.float64).T])
    share, mean = (_mean_over_groups(each, concept, group, len(vectors)) for each in ((values > 0) * 1.0, values))
    return Directional(share[:, 0], mean[:, 0], share[:, 1:], mean[:, 1:])


def mean_gradients(
    gradient: npt.NDArray[np.float64], concept: Int64, group: Int64, n_concepts: int
) -> npt.NDArray[np.float64]:
    """Mean over groups of each group's mean gradient: float64 [concepts, d]; NaN for a concept without any.

    A mean derivative is linear in its vector: it is this gradient times the vector, for as many vectors as are asked about.
    gradient: [pairs, d]. concept, group: int64 [pairs].
    """
    known = np.isfinite(gradient[:, 0]) if gradient.shape[1] else np.zeros(len(gradient), bool)
    return _mean_over_groups(gradient[known], concept[known], group[known], n_concepts)


def means_along(
    mean: npt.NDArray[np.float64], vectors: Sequence[npt.NDArray[np.floating] | None]
) -> npt.NDArray[np.float64]:
    """Mean derivative along each concept's own null vectors: float64 [concepts, most draws], NaN where a concept has fewer.

    mean: as `mean_gradients` gives it. vectors: of each concept, [draws, d], or None.
    """
    most = max((len(each) for each in vectors if each is not None), default=0)
    found = np.full((len(mean), most), np.nan)
    for number, each in enumerate(vectors):
        if each is not None:
            found[number, : len(each)] = np.asarray(each, np.float64) @ mean[number]
    return found


def _mean_over_groups(
    values: npt.NDArray[np.floating], concept: Int64, group: Int64, n_concepts: int
) -> npt.NDArray[np.float64]:
    """Mean over each concept's groups of the group's mean: float64 [concepts, columns]; NaN without any. values: [pairs, columns]."""
    of_cell, cell = cells_of(concept, group)
    size = np.bincount(cell, minlength=len(of_cell))[:, None]
    n_groups = np.bincount(of_cell, minlength=n_concepts)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: npt.NDArray[np.float64] = (
            _summed(_summed(values, cell, len(of_cell)) / size, of_cell, n_concepts) / n_groups
        )
    return mean


def _summed(values: npt.NDArray[np.floating], to: Int64, n: int) -> npt.NDArray[np.float64]:
    found = np.zeros((n, values.shape[1]))
    np.add.at(found, to, values)
    return found
