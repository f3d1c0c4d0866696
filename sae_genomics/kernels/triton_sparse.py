"""Sparse products on CUDA: sums of chosen rows, and a latent's three gradients in one pass over its entries.

Without Triton, without CUDA and with SAE_GENOMICS_TRITON=0 the plain versions do the work. TRITON_INTERPRET=1 tries the
Triton programs on a CPU.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from functools import cache

import torch

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.plain import triton_sparse as plain
from sae_genomics.kernels.plain.triton_sparse import gathered_dots

__all__ = ["gathered_dots", "latent_gradients", "spmm"]

_launching = threading.Lock()  # of layers trained at once: a kernel is compiled at its first launch, by one of them


def _runs(tensor: torch.Tensor) -> bool:
    wanted = os.environ.get("SAE_GENOMICS_TRITON") != "0"
    return wanted and (tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1") and _installed()


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@instead_of(plain.spmm)
def spmm(
    row: torch.Tensor, column: torch.Tensor, value: torch.Tensor, n_rows: int, dense: torch.Tensor
) -> torch.Tensor:
    """Sum of value x dense[column] by row, float32 [n_rows, d]. row: int64 [n], ascending."""
    if not _runs(dense):
        return plain.spmm(row, column, value, n_rows, dense)
    from sae_genomics.kernels import triton_programs

    width = dense.shape[1]
    out = torch.empty(n_rows, width, dtype=dense.dtype, device=dense.device)
    with _launching:
        triton_programs.sum_rows[(n_rows,)](_pointers(row, n_rows), column, value, dense, out, width, _block(width))
    return out


@instead_of(plain.latent_gradients)
def latent_gradients(
    centred: torch.Tensor,
    gradient: torch.Tensor,
    W_dec: torch.Tensor,
    latent: torch.Tensor,
    token: torch.Tensor,
    row: torch.Tensor,
    value: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Gradients of W_enc, b_enc and W_dec from entries in any order; formula and shapes stand in the plain version."""
    if not _runs(W_dec):
        return plain.latent_gradients(centred, gradient, W_dec, latent, token, row, value)
    from sae_genomics.kernels import triton_programs

    latent, order = latent.sort(stable=True)
    d_sae, d_in = W_dec.shape
    grad_enc, grad_dec = torch.empty_like(W_dec), torch.empty_like(W_dec)
    grad_b_enc = torch.empty(d_sae, dtype=W_dec.dtype, device=W_dec.device)
    with _launching:
        triton_programs.latent_gradients[(d_sae,)](
            centred, gradient, W_dec, _pointers(latent, d_sae), token[order], row[order], value[order],
            grad_enc, grad_dec, grad_b_enc, d_in, _block(d_in),
        )  # fmt: skip
    return {"W_enc": grad_enc, "b_enc": grad_b_enc, "W_dec": grad_dec}


def _pointers(row: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Where each row's entries start, int64 [n_rows + 1]. row: int64 [n], ascending."""
    return torch.searchsorted(row, torch.arange(n_rows + 1, device=row.device))


def _block(width: int) -> int:
    """The power of two that holds a row."""
    return 1 << max(width - 1, 0).bit_length()
