"""The encoder's matrix product: oneDNN's on a CPU (`kernels.onednn`), torch's own elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sae_genomics.kernels import onednn

ELEMENTS = 1 << 22  # of a result: larger ones come in fresh pages each time, which costs a quarter of the product
MIN_ROWS = 128


def rows_at_once(columns: int) -> int:
    """Rows of a product with so many columns that are best made at once: a power of two."""
    return int(max(MIN_ROWS, 1 << ((ELEMENTS // columns) | 1).bit_length() - 1))


def pieces(rows: int, columns: int) -> Iterator[slice]:
    """Cut rows into pieces of few different sizes: as many as are best made at once, then ever smaller powers of two.

    oneDNN keeps some megabytes for each size it has seen, and blocks of whole cells are all of different sizes.
    """
    start, size = 0, rows_at_once(columns)
    while rows - start >= MIN_ROWS:
        while size > rows - start:
            size //= 2
        yield slice(start, start + size)
        start += size
    if start < rows:
        yield slice(start, rows)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x weight^T + bias. x: float32 [rows, d_in]. weight: float32 [columns, d_in]. bias: float32 [columns]."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and len(x) >= MIN_ROWS and onednn.available(torch.float32):
        return onednn.product(x, weight, bias)
    return torch.nn.functional.linear(x, weight, bias)
