"""How much ablating every feature of a layer changes the predictions, to first order: one forward and a few backward passes for
all of them.

With J the derivative of an item's predictions with respect to the layer's activations and D_f what ablating feature f adds, the change is J D_f to
first order. Its length needs no pass per feature: for random signs e, the mean of (e . J D_f)^2 is |J D_f|^2, and e . J is one backward
pass (Hutchinson's estimator, as for traces). All features are then products of that gradient with their decoder directions, at the tokens
where they fire.

For a distribution the signs are weighted by the square roots of the probabilities p_v, on log p_v: then the mean is the sum over v of
p_v (change of log p_v)^2, which is 2 KL(before, after) to second order. KL itself has a gradient of 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.causal.encoded import encode_paused
from sae_genomics.causal.section import PROBES
from sae_genomics.kernels.dots import pair_values
from sae_genomics.models.editing import Paused
from sae_genomics.tokens import counted_tokens, items_in_order

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel
    from sae_genomics.sae.load import Encoder

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Strength:
    """first_order: float64 [features], root mean square over items; 0 where a feature never fires. n_items: int64 [features]."""

    first_order: Floats
    n_items: npt.NDArray[np.int64]

    @staticmethod
    def joined(parts: Sequence[Strength]) -> Strength:
        """Of the items of all parts."""
        n_items = np.sum([part.n_items for part in parts], axis=0)
        squares = np.sum([part.first_order**2 * part.n_items for part in parts], axis=0)
        return Strength(np.sqrt(squares / np.maximum(n_items, 1)), n_items)


def first_order_strength(
    model: FoundationModel, paused: Paused, encoder: Encoder, generator: np.random.Generator
) -> Strength:
    """Of the items of one batch: one forward and PROBES backward passes."""
    active = encode_paused(model, paused, encoder)
    item = items_in_order(paused.batch)[1]
    pair, place = np.unique(item[active.token] * encoder.d_sae + active.feature, return_inverse=True)
    directions = np.ascontiguousarray(encoder.W_dec.float().cpu().numpy())
    nothing = np.zeros(encoder.d_sae, np.float32)
    squares = np.zeros(len(pair))
    for gradient in _probes(model, paused, generator):
        along = pair_values(gradient, directions, nothing, active.token, active.feature)
        squares += np.bincount(place, along.astype(np.float64) * active.activation, len(pair)) ** 2
    feature = pair % encoder.d_sae
    n_items = np.bincount(feature, minlength=encoder.d_sae)
    mean = np.bincount(feature, squares / PROBES, encoder.d_sae) / np.maximum(n_items, 1)
    return Strength(np.sqrt(mean), n_items.astype(np.int64))


def gradient_of(model: FoundationModel, paused: Paused, weights: Floats) -> npt.NDArray[np.float32]:
    """The gradient of the weighted sum of predicted values with respect to the activations: float32 [T, d_model]. weights: [T]."""
    x, token = _predicted(model, paused)
    return _gradient(token, torch.from_numpy(weights.astype(np.float32)), x)


def _predicted(model: FoundationModel, paused: Paused) -> tuple[torch.Tensor, torch.Tensor]:
    """The activations in float32, and the values, [T], or log-probabilities, [T, vocabulary], that the model predicts from them."""
    with torch.enable_grad():
        x = paused.activations.detach().float().requires_grad_()
        token = model.resume(paused, x.to(paused.activations.dtype)).token
        assert token is not None
        return x, token.float() if model.outcome == "value" else torch.log_softmax(token.float(), dim=-1)


def _gradient(
    predicted: torch.Tensor, weights: torch.Tensor, x: torch.Tensor, *, again: bool = False
) -> npt.NDArray[np.float32]:
    """Of the weighted sum with respect to x. again: another gradient through the same forward pass follows."""
    (gradient,) = torch.autograd.grad(predicted, [x], weights.to(predicted.device), retain_graph=again)
    return np.ascontiguousarray(gradient.cpu().numpy())


def _probes(
    model: FoundationModel, paused: Paused, generator: np.random.Generator
) -> Iterator[npt.NDArray[np.float32]]:
    """e . J of every item, for PROBES draws of signs: float32 [T, d_model] each. The model runs forward once."""
    counted = torch.from_numpy(counted_tokens(paused.batch))
    x, predicted = _predicted(model, paused)
    for probe in range(PROBES):
        signs = torch.from_numpy(generator.choice([-1.0, 1.0], tuple(predicted.shape)).astype(np.float32))
        signs[~counted] = 0
        weights = signs.to(predicted.device)
        if model.outcome == "distribution":
            weights = weights * predicted.detach().exp().sqrt()
        yield _gradient(predicted, weights, x, again=probe < PROBES - 1)
