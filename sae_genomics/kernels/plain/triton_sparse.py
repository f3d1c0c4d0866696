"""Sparse products in plain PyTorch, on any device: the plain versions of the Triton kernels."""

from __future__ import annotations

import torch

GATHER_ELEMENTS = 1 << 24  # numbers that are copied at once from each of two matrices


def spmm(
    row: torch.Tensor, column: torch.Tensor, value: torch.Tensor, n_rows: int, dense: torch.Tensor
) -> torch.Tensor:
    """out[r] = sum of value[n] dense[column[n]] over the entries n with row[n] = r: float32 [n_rows, d].

    row: int64 [n], ascending. column: int64 [n]. value: float32 [n]. dense: float32 [columns, d].
    """
    pointers = torch.searchsorted(row, torch.arange(n_rows + 1, device=row.device))
    matrix = torch.sparse_csr_tensor(pointers, column, value, (n_rows, len(dense)), check_invariants=False)
    return matrix @ dense


def gathered_dots(
    left: torch.Tensor, left_row: torch.Tensor, right: torch.Tensor, right_row: torch.Tensor
) -> torch.Tensor:
    """left[left_row] . right[right_row], float32 [n], a bounded number of pairs at a time."""
    at_once = max(1, GATHER_ELEMENTS // left.shape[1])
    parts = [
        torch.einsum("nd,nd->n", left[left_row[start : start + at_once]], right[right_row[start : start + at_once]])
        for start in range(0, len(left_row), at_once)
    ]
    return torch.cat(parts) if parts else left.new_zeros(0)


def latent_gradients(
    centred: torch.Tensor,
    gradient: torch.Tensor,
    W_dec: torch.Tensor,
    latent: torch.Tensor,
    token: torch.Tensor,
    row: torch.Tensor,
    value: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Gradients of W_enc, b_enc and W_dec from the active entries n, in any order:

        slope[n] = gradient[row[n]] . W_dec[latent[n]]
        dL/dW_dec[j] = sum of value[n] gradient[row[n]],  dL/dW_enc[j] = sum of slope[n] centred[token[n]],
        dL/db_enc[j] = sum of slope[n],  each over the entries with latent[n] = j

    centred: float32 [tokens, d_in]. gradient: float32 [rows, d_in]. latent, token, row: int64 [n]. value: float32 [n].
    """
    latent, order = latent.sort(stable=True)
    token, row, value = token[order], row[order], value[order]
    slope = gathered_dots(gradient, row, W_dec, latent)
    return {
        "W_enc": spmm(latent, token, slope, len(W_dec), centred),
        "b_enc": torch.zeros(len(W_dec), device=W_dec.device).index_add_(0, latent, slope),
        "W_dec": spmm(latent, row, value, len(W_dec), gradient),
    }
