"""Triton kernels for CUDA: sums of chosen rows, and a latent's three gradients in one pass over its entries.

Each program owns the rows it writes, so there are no atomic additions and results are the same from run to run. The plain PyTorch
versions in `sae_genomics.sae.torch_step` are their oracle; `tests/kernels/test_triton_sparse.py` compares them on a GPU, or anywhere with
TRITON_INTERPRET=1.
"""

from __future__ import annotations

import threading

import torch
import triton
import triton.language as tl

_launching = threading.Lock()  # of layers trained at once: a kernel is compiled at its first launch, by one of them


def sum_rows(pointers: torch.Tensor, column: torch.Tensor, value: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Sum of value x dense[column] by row, float32 [rows, d]. pointers: int64 [rows + 1]; column int64, value float32 [n]."""
    rows, width = len(pointers) - 1, dense.shape[1]
    out = torch.empty(rows, width, dtype=dense.dtype, device=dense.device)
    with _launching:
        _sum_rows[(rows,)](pointers, column, value, dense, out, width, triton.next_power_of_2(width))
    return out


def latent_gradients(
    centred: torch.Tensor,
    gradient: torch.Tensor,
    W_dec: torch.Tensor,
    pointers: torch.Tensor,
    token: torch.Tensor,
    row: torch.Tensor,
    value: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Gradients of W_enc, b_enc and W_dec from entries sorted by latent; pointers: int64 [d_sae + 1]."""
    d_sae, d_in = W_dec.shape
    grad_enc, grad_dec = torch.empty_like(W_dec), torch.empty_like(W_dec)
    grad_b_enc = torch.empty(d_sae, dtype=W_dec.dtype, device=W_dec.device)
    with _launching:
        _latent_gradients[(d_sae,)](
            centred, gradient, W_dec, pointers, token, row, value, grad_enc, grad_dec, grad_b_enc, d_in,
            triton.next_power_of_2(d_in),
        )  # fmt: skip
    return {"W_enc": grad_enc, "b_enc": grad_b_enc, "W_dec": grad_dec}


@triton.jit
def _sum_rows(pointers, column, value, dense, out, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < width
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    first, last = tl.load(pointers + row), tl.load(pointers + row + 1)
    for entry in range(first, last):
        weight = tl.load(value + entry)
        source = tl.load(column + entry)
        total += weight * tl.load(dense + source * width + place, mask=inside, other=0.0)
    tl.store(out + row * width + place, total, mask=inside)


@triton.jit
def _latent_gradients(  # type: ignore[no-untyped-def]
    centred, gradient, W_dec, pointers, token, row, value, grad_enc, grad_dec, grad_b_enc, width, BLOCK: tl.constexpr
):
    latent = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < width
    decoder = tl.load(W_dec + latent * width + place, mask=inside, other=0.0)
    sum_dec = tl.zeros((BLOCK,), dtype=tl.float32)
    sum_enc = tl.zeros((BLOCK,), dtype=tl.float32)
    sum_bias = 0.0
    first, last = tl.load(pointers + latent), tl.load(pointers + latent + 1)
    for entry in range(first, last):
        g = tl.load(gradient + tl.load(row + entry) * width + place, mask=inside, other=0.0)
        slope = tl.sum(g * decoder)
        sum_dec += tl.load(value + entry) * g
        sum_enc += slope * tl.load(centred + tl.load(token + entry) * width + place, mask=inside, other=0.0)
        sum_bias += slope
    tl.store(grad_dec + latent * width + place, sum_dec, mask=inside)
    tl.store(grad_enc + latent * width + place, sum_enc, mask=inside)
    tl.store(grad_b_enc + latent, sum_bias)
