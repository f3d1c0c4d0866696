"""The encoder's matrix product on a CPU, by the library that is fastest at it.

torch gives float32 products to MKL, which on AMD processors runs at half their rate; oneDNN, which comes with torch too, does
not. Both are full float32 and differ in rounding alone.
"""

from __future__ import annotations

from functools import lru_cache

import torch

ELEMENTS = 1 << 22  # of a result: larger ones come in fresh pages each time, which costs a quarter of the product
MIN_ROWS = 128


def rows_at_once(columns: int) -> int:
    """Rows of a product with so many columns that are best made at once."""
    return max(MIN_ROWS, ELEMENTS // columns)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x weight^T + bias. x: float32 [rows, d_in]. weight: float32 [columns, d_in]. bias: float32 [columns]."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and _onednn():
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return torch.nn.functional.linear(x, weight, bias)


@lru_cache(maxsize=1)
def _onednn() -> bool:
    """Whether this torch offers oneDNN's float32 product and it gives what it should."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.arange(6.0).reshape(2, 3), torch.arange(12.0).reshape(4, 3)
    try:
        product = torch.ops.mkldnn._linear_pointwise(x, weight, torch.ones(4), "none", [], "")
    except (AttributeError, RuntimeError):  # not in this torch, or with other arguments
        return False
    return bool(torch.equal(product, x @ weight.T + 1))
