"""A linear layer's product, by torch's own function."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias. x: [rows, n_in]. weight: [n_out, n_in]. bias: [n_out]."""
    return F.linear(x, weight, bias)
