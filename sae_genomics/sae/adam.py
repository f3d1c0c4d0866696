"""Adam in plain torch operations, for devices that have no kernel of their own (`sae_genomics.kernels.adam` is the CPU's).

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

(Kingma and Ba 2015).
"""

from __future__ import annotations

import torch

from sae_genomics.kernels.adam import BETA1, BETA2, EPSILON


def adam_tensor(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    lr: float,
    step: int,
) -> None:
    """Update parameter, exp_avg and exp_avg_sq in place, tensors of one shape. step: number of this update, from 1."""
    exp_avg.lerp_(gradient, 1 - BETA1)
    exp_avg_sq.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    denominator = (exp_avg_sq / (1 - BETA2**step)).sqrt_().add_(EPSILON)
    parameter.addcdiv_(exp_avg, denominator, value=-lr / (1 - BETA1**step))
