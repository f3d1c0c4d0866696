"""What an optimisation step is, whatever computes it.

Loss of a batch of T tokens x (Gao et al. 2024), as SAELens' trainer computes it:

    h = (x - b_dec) W_enc^T + b_enc
    S = the k latents with the largest h_j |W_dec[j]|;   a_j = max(h_j, 0) for j in S
    L = 1/T sum_t |x - b_dec - sum_{j in S} a_j W_dec[j]|^2 + L_aux

Choosing by h_j |W_dec[j]| and folding the norms into the encoder when saving gives what a decoder of unit rows would give;
the norms get no gradient of their own, because scaling a row of W_dec up and of W_enc down changes nothing else.

This is TopK's. `architectures/` says what the others do instead: another choice of S, further reconstructions, another L.

L_aux (AuxK, Gao et al., appendix A.2): the k_aux = d_in / 2 largest h_j |W_dec[j]| among dead latents reconstruct the
residual, weighted by auxk_coefficient and by min(1, dead / k_aux). Gradients are clipped to norm 1, then Adam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from sae_genomics.sae.spec import Spec
    from sae_genomics.sae.state import SaeState

CLIP_NORM = 1.0


@dataclass(frozen=True)
class StepResult:
    """What one step measured, before its update.

    loss: everything that was minimised. mse: mean squared error summed over d_in, mean over tokens.
    auxk: the weighted dead-latent loss. l0: active latents a token. dead: latents silent for dead_after_tokens.
    grad_norm: norm of all gradients before clipping.
    """

    loss: float
    mse: float
    auxk: float
    l0: float
    dead: int
    grad_norm: float


class TakeStep(Protocol):
    """Takes one step on x, float32 [tokens, d_in] scaled activations, and changes `state` in place."""

    state: SaeState

    def __call__(self, x: torch.Tensor, lr: float) -> StepResult: ...


def auxk_size(spec: Spec, n_dead: int) -> tuple[int, float]:
    """How many dead latents a token takes for the dead-latent loss, and that loss's weight; (0, 0) where it is off."""
    half = spec.d_in // 2
    if spec.auxk_coefficient <= 0 or n_dead == 0 or half == 0:
        return 0, 0.0
    return min(half, n_dead), spec.auxk_coefficient * min(1.0, n_dead / half)


def clip_factor(grad_norm: float) -> float:
    """What gradients of this norm are multiplied by (as torch's clip_grad_norm_ does it)."""
    return min(1.0, CLIP_NORM / (grad_norm + 1e-6))
