"""How much ablating every feature of a layer changes the predictions, to first order: a few backward passes for all of them.

With J the derivative of an item's predictions with respect to the layer's activations and D_f what ablating feature f adds, the change is J D_f to
first order. Its length needs no pass per feature: for random signs e, the mean of (e . J D_f)^2 is |J D_f|^2, and e . J is one backward
pass (Hutchinson's estimator, as for traces). All features are then products of that gradient with their decoder directions, at the tokens
where they fire.

For a distribution the signs are weighted by the square roots of the probabilities p_v, on log p_v: then the mean is the sum over v of
p_v (change of log p_v)^2, which is 2 KL(before, after) to second order. KL itself has a gradient of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.causal.encoded import encode_paused
from sae_genomics.kernels.dots import pair_values
from sae_genomics.models.editing import Paused
from sae_genomics.tokens import Tokens, items_in_order

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel
    from sae_genomics.sae.load import Encoder

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PROBES = 4


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


def counted_tokens(batch: Tokens) -> Bools:
    """Tokens whose predictions count: no special ones, and of overlapping windows those that are stored: bool [T]."""
    usual = ~batch.special & (batch.unit >= 0)
    return usual if batch.stored is None else usual & batch.stored


def first_order_strength(
    model: FoundationModel, paused: Paused, encoder: Encoder, generator: np.random.Generator
) -> Strength:
    """Of the items of one batch: PROBES backward passes."""
    active = encode_paused(model, paused, encoder)
    item = items_in_order(paused.batch)[1]
    pair, place = np.unique(item[active.token] * encoder.d_sae + active.feature, return_inverse=True)
    counted = counted_tokens(paused.batch)
    directions = np.ascontiguousarray(encoder.W_dec.float().cpu().numpy())
    nothing = np.zeros(encoder.d_sae, np.float32)
    squares = np.zeros(len(pair))
    for _ in range(PROBES):
        gradient = _probe(model, paused, counted, generator)
        along = pair_values(gradient, directions, nothing, active.token, active.feature)
        squares += np.bincount(place, along.astype(np.float64) * active.activation, len(pair)) ** 2
    feature = pair % encoder.d_sae
    n_items = np.bincount(feature, minlength=encoder.d_sae)
    mean = np.bincount(feature, squares / PROBES, encoder.d_sae) / np.maximum(n_items, 1)
    return Strength(np.sqrt(mean), n_items.astype(np.int64))


def gradient_of(model: FoundationModel, paused: Paused, weights: Floats) -> npt.NDArray[np.float32]:
    """The gradient of the weighted sum of predicted values with respect to the activations: float32 [T, d_model]. weights: [T]."""
    with torch.enable_grad():
        x = paused.activations.detach().float().requires_grad_()
        token = model.resume(paused, x.to(paused.activations.dtype)).token
        assert token is not None
        (token.float() * torch.from_numpy(weights.astype(np.float32)).to(token.device)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return np.ascontiguousarray(x.grad.cpu().numpy())


def _probe(
    model: FoundationModel, paused: Paused, counted: Bools, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """e . J of every item: float32 [T, d_model]."""
    if model.outcome == "value":
        signs = np.where(counted, generator.choice([-1.0, 1.0], len(counted)), 0.0)
        return gradient_of(model, paused, signs)
    with torch.enable_grad():
        x = paused.activations.detach().float().requires_grad_()
        token = model.resume(paused, x.to(paused.activations.dtype)).token
        assert token is not None
        logged = torch.log_softmax(token.float(), dim=-1)
        random_signs = torch.from_numpy(generator.choice([-1.0, 1.0], tuple(logged.shape)).astype(np.float32)).to(
            logged.device
        )
        random_signs[torch.from_numpy(~counted).to(logged.device)] = 0
        (random_signs * logged.detach().exp().sqrt() * logged).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return np.ascontiguousarray(x.grad.cpu().numpy())
