"""The Triton programs of `triton_sparse`. Importing this file needs Triton.

Each program owns the rows it writes, so there are no atomic additions and results are the same from run to run.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sum_rows(pointers, column, value, dense, out, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    offset = tl.arange(0, BLOCK)
    inside = offset < width
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    first, last = tl.load(pointers + row), tl.load(pointers + row + 1)
    for entry in range(first, last):
        weight = tl.load(value + entry)
        source = tl.load(column + entry)
        total += weight * tl.load(dense + source * width + offset, mask=inside, other=0.0)
    tl.store(out + row * width + offset, total, mask=inside)


@triton.jit
def latent_gradients(  # type: ignore[no-untyped-def]
    centred, gradient, W_dec, pointers, token, row, value, grad_enc, grad_dec, grad_b_enc, width, BLOCK: tl.constexpr
):
    latent = tl.program_id(0).to(tl.int64)
    offset = tl.arange(0, BLOCK)
    inside = offset < width
    decoder = tl.load(W_dec + latent * width + offset, mask=inside, other=0.0)
    sum_dec = tl.zeros((BLOCK,), dtype=tl.float32)
    sum_enc = tl.zeros((BLOCK,), dtype=tl.float32)
    sum_bias = 0.0
    first, last = tl.load(pointers + latent), tl.load(pointers + latent + 1)
    for entry in range(first, last):
        g = tl.load(gradient + tl.load(row + entry) * width + offset, mask=inside, other=0.0)
        slope = tl.sum(g * decoder)
        sum_dec += tl.load(value + entry) * g
        sum_enc += slope * tl.load(centred + tl.load(token + entry) * width + offset, mask=inside, other=0.0)
        sum_bias += slope
    tl.store(grad_dec + latent * width + offset, sum_dec, mask=inside)
    tl.store(grad_enc + latent * width + offset, sum_enc, mask=inside)
    tl.store(grad_b_enc + latent, sum_bias)
