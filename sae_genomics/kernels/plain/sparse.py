"""Decoding and gradients from the active entries alone, in NumPy and SciPy.

An entry is (token, latent, value). `kernels.sparse` takes and gives entries in these two orders, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_genomics.kernels.plain.dots import pair_values

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Entries(NamedTuple):
    """Active latents by token.

    indptr: int64 [tokens + 1]. indices: int32 [n], latents, ascending within a token. values: float32 [n].
    """

    indptr: Int64
    indices: Int32
    values: Float32


class LatentEntries(NamedTuple):
    """The same entries by latent.

    indptr: int64 [d_sae + 1]. tokens: int32 [n]. rows: int32 [n], which row of the stacked gradients. values: float32 [n].
    """

    indptr: Int64
    tokens: Int32
    rows: Int32
    values: Float32


def decode(x: Float32, bias: Float32, W_dec: Float32, entries: Entries, widths: Int64) -> tuple[Float32, Float32]:
    """Errors of the reconstructions from the first widths[0], widths[1], ... latents:

        error[level, t] = bias + sum of value W_dec[j] over the entries (t, j, value) with j < widths[level]  -  x[t]

    x: float32 [tokens, d_in]. bias: float32 [d_in]. W_dec: float32 [d_sae, d_in]. widths: int64 [levels], ascending.
    Returns error, float32 [levels, tokens, d_in], and its squared norm, float32 [levels, tokens].
    """
    indptr, indices, values = entries
    errors = []
    for width in widths:
        used = np.where(indices < width, values, np.float32(0))
        errors.append(csr_array((used, indices, indptr), shape=(len(x), len(W_dec))) @ W_dec + bias - x)
    error = np.stack(errors)
    return error, np.square(error).sum(axis=2)


def by_latent(parts: list[tuple[Entries, Int32, bool]], d_sae: int) -> LatentEntries:
    """Sort entries by latent; within a latent, part by part, and tokens ascending within each part.

    parts: (entries, first gradient row of each latent's level int32 [d_sae], whether values <= 0 carry a gradient); the row
    of an entry's gradient is that first row plus its token.
    """
    found = []
    for entries, first_row, signed in parts:
        token = np.repeat(np.arange(len(entries.indptr) - 1, dtype=np.int32), np.diff(entries.indptr))
        kept = signed | (entries.values > 0)
        token, latent, value = token[kept], entries.indices[kept], entries.values[kept]
        found.append((latent, token, first_row[latent] + token, value))
    latent, token, row, value = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(latent, kind="stable")
    indptr = np.searchsorted(latent[order], np.arange(d_sae + 1))
    return LatentEntries(indptr, token[order], row[order], value[order])


def latent_gradients(
    centred: Float32,
    gradient: Float32,
    W_enc: Float32,
    W_dec: Float32,
    entries: LatentEntries,
    grad_enc: Float32,
    grad_dec: Float32,
    grad_b_enc: Float32,
) -> tuple[Float32, float]:
    """Gradients of encoder rows, encoder biases and decoder rows; rows of latents without an entry are left untouched:

        slope[n] = gradient[rows[n]] . W_dec[j]            over the entries n of latent j
        dL/dW_dec[j] = sum_n value[n] gradient[rows[n]],   dL/dW_enc[j] = sum_n slope[n] centred[tokens[n]],
        dL/db_enc[j] = sum_n slope[n]

    centred: float32 [tokens, d_in], x - b_dec. gradient: float32 [rows, d_in], dL/dreconstruction, levels stacked.
    grad_enc, grad_dec: float32 [d_sae, d_in], written. grad_b_enc: float32 [d_sae], written (0 without an entry).
    Returns dL/d(x - b_dec) summed over tokens, float32 [d_in], and the squared norm of the three gradients.
    """
    d_sae = len(W_dec)
    indptr, tokens, rows, values = entries
    latent = np.repeat(np.arange(d_sae, dtype=np.int32), np.diff(indptr))
    slope = pair_values(gradient, W_dec, np.zeros(d_sae, np.float32), rows, latent)
    used = np.flatnonzero(np.diff(indptr))
    grad_dec[used] = (csr_array((values, rows, indptr), shape=(d_sae, len(gradient))) @ gradient)[used]
    grad_enc[used] = (csr_array((slope, tokens, indptr), shape=(d_sae, len(centred))) @ centred)[used]
    grad_b_enc[:] = np.bincount(latent, slope, minlength=d_sae)
    squared = sum(float(np.square(part[used]).sum(dtype=np.float64)) for part in (grad_enc, grad_dec, grad_b_enc))
    return grad_b_enc[used] @ W_enc[used], squared
