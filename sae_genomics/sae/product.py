"""The encoder's matrix product: oneDNN's on a CPU (`sae_genomics.onednn`), torch's own elsewhere."""

from __future__ import annotations

import torch

from sae_genomics import onednn

ELEMENTS = 1 << 22  # of a result: larger ones come in fresh pages each time, which costs a quarter of the product
MIN_ROWS = 128


def rows_at_once(columns: int) -> int:
    """Rows of a product with so many columns that are best made at once."""
    return max(MIN_ROWS, ELEMENTS // columns)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x weight^T + bias. x: float32 [rows, d_in]. weight: float32 [columns, d_in]. bias: float32 [columns]."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and onednn.available(torch.float32):
        return onednn.product(x, weight, bias)
    return torch.nn.functional.linear(x, weight, bias)
