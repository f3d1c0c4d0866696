"""Decoding and gradients from the active entries alone: nothing of size tokens x k x d_in is ever made.

An entry is (token, latent, value). By token, entries give reconstructions; sorted by latent, they give the gradient of
each latent's decoder and encoder row while that row stays in the first-level cache:

    dL/dW_dec[j] = sum_t value[t, j] g[t]
    dL/dvalue[t, j] = g[t] . W_dec[j]                 (g = dL/dreconstruction)
    dL/dW_enc[j] = sum_t dL/dvalue[t, j] (x[t] - b_dec)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.compiled import each_range, kernel

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_TOKENS = 16
LATENTS = 128


@dataclass(frozen=True)
class Entries:
    """Active latents by token.

    indptr: int64 [tokens + 1]. indices: int32 [n], latents, ascending within a token. values: float32 [n].
    """

    indptr: Int64
    indices: Int32
    values: Float32


@dataclass(frozen=True)
class LatentEntries:
    """The same entries by latent.

    indptr: int64 [d_sae + 1]. tokens: int32 [n]. rows: int32 [n], which row of the stacked gradients. values: float32 [n].
    """

    indptr: Int64
    tokens: Int32
    rows: Int32
    values: Float32


def decode(x: Float32, bias: Float32, W_dec: Float32, entries: Entries, widths: Int64) -> tuple[Float32, Float32]:
    """Errors of the reconstructions from the first widths[0], widths[1], ... latents.

    x: float32 [tokens, d_in]. bias: float32 [d_in]. W_dec: float32 [d_sae, d_in]. widths: int64 [levels], ascending.
    Returns error = reconstruction - x, float32 [levels, tokens, d_in], and its squared norm, float32 [levels, tokens].
    """
    levels, (tokens, d_in) = len(widths), x.shape
    error = np.empty((levels, tokens, d_in), np.float32)
    squared = np.empty((levels, tokens), np.float32)
    each_range(
        tokens,
        _TOKENS,
        lambda start, stop: _decode_rows(
            x, bias, W_dec, entries.indptr, entries.indices, entries.values, widths, start, stop, error, squared
        ),
    )
    return error, squared


@kernel
def _decode_rows(x, bias, W_dec, indptr, indices, values, widths, start, stop, error, squared):  # type: ignore[no-untyped-def]
    d_in = x.shape[1]
    sums = np.empty(d_in, np.float32)
    for token in range(start, stop):
        for i in range(d_in):
            sums[i] = bias[i] - x[token, i]
        position, end = indptr[token], indptr[token + 1]
        for level in range(widths.shape[0]):
            last = position
            while last < end and indices[last] < widths[level]:
                last += 1
            while position + 4 <= last:
                a, b, c, d = indices[position], indices[position + 1], indices[position + 2], indices[position + 3]
                va, vb, vc, vd = values[position], values[position + 1], values[position + 2], values[position + 3]
                for i in range(d_in):
                    sums[i] += va * W_dec[a, i] + vb * W_dec[b, i] + vc * W_dec[c, i] + vd * W_dec[d, i]
                position += 4
            while position < last:
                a, va = indices[position], values[position]
                for i in range(d_in):
                    sums[i] += va * W_dec[a, i]
                position += 1
            total = np.float32(0)
            for i in range(d_in):
                error[level, token, i] = sums[i]
                total += sums[i] * sums[i]
            squared[level, token] = total


def by_latent(parts: list[tuple[Entries, Int32, bool]], d_sae: int) -> LatentEntries:
    """Sort entries by latent, tokens ascending within each.

    parts: (entries, first gradient row of each latent's level int32 [d_sae], whether values <= 0 carry a gradient); the row
    of an entry's gradient is that first row plus its token.
    """
    indptr = np.zeros(d_sae + 1, np.int64)
    for entries, _, signed in parts:
        _count_latents(entries.indices, entries.values, signed, indptr)
    np.cumsum(indptr, out=indptr)
    total = int(indptr[-1])
    tokens, rows, values = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.float32)
    position = indptr[:-1].copy()
    for entries, first_row, signed in parts:
        _scatter_entries(
            entries.indptr, entries.indices, entries.values, first_row, signed, position, tokens, rows, values
        )
    return LatentEntries(indptr, tokens, rows, values)


@kernel
def _count_latents(indices, values, signed, indptr):  # type: ignore[no-untyped-def]
    for i in range(indices.shape[0]):
        if signed or values[i] > 0:
            indptr[indices[i] + 1] += 1


@kernel
def _scatter_entries(  # type: ignore[no-untyped-def]
    token_indptr, indices, entry_values, first_row, signed, position, tokens, rows, values
):
    for token in range(token_indptr.shape[0] - 1):
        for i in range(token_indptr[token], token_indptr[token + 1]):
            if signed or entry_values[i] > 0:
                latent = indices[i]
                place = position[latent]
                position[latent] = place + 1
                tokens[place] = token
                rows[place] = first_row[latent] + token
                values[place] = entry_values[i]


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
    """Gradients of encoder rows, encoder biases and decoder rows; rows of latents without an entry are left untouched.

    centred: float32 [tokens, d_in], x - b_dec. gradient: float32 [rows, d_in], dL/dreconstruction, levels stacked.
    grad_enc, grad_dec: float32 [d_sae, d_in], written. grad_b_enc: float32 [d_sae], written (0 without an entry).
    Returns dL/d(x - b_dec) summed over tokens, float32 [d_in], and the squared norm of the three gradients.
    """
    d_sae, d_in = W_dec.shape
    n_ranges = -(-d_sae // LATENTS)
    input_gradient = np.zeros((n_ranges, d_in), np.float32)
    squared = np.zeros(n_ranges, np.float64)
    each_range(
        d_sae,
        LATENTS,
        lambda start, stop: _gradient_rows(
            centred, gradient, W_enc, W_dec, entries.indptr, entries.tokens, entries.rows, entries.values,
            start, stop, grad_enc, grad_dec, grad_b_enc, input_gradient[start // LATENTS], squared[start // LATENTS :],
        ),
    )  # fmt: skip
    return input_gradient.sum(axis=0), float(squared.sum())


@kernel
def _gradient_rows(  # type: ignore[no-untyped-def]
    centred, gradient, W_enc, W_dec, indptr, tokens, rows, values,
    start, stop, grad_enc, grad_dec, grad_b_enc, input_gradient, squared,
):  # fmt: skip
    d_in = W_dec.shape[1]
    norm = 0.0
    for latent in range(start, stop):
        first, last = indptr[latent], indptr[latent + 1]
        bias = np.float32(0)
        if first == last:
            grad_b_enc[latent] = bias
            continue
        for i in range(d_in):
            grad_dec[latent, i] = 0
            grad_enc[latent, i] = 0
        for entry in range(first, last):
            row, token, value = rows[entry], tokens[entry], values[entry]
            slope = np.float32(0)
            for i in range(d_in):
                slope += gradient[row, i] * W_dec[latent, i]
                grad_dec[latent, i] += value * gradient[row, i]
            for i in range(d_in):
                grad_enc[latent, i] += slope * centred[token, i]
            bias += slope
        grad_b_enc[latent] = bias
        total = bias * bias
        for i in range(d_in):
            total += grad_dec[latent, i] * grad_dec[latent, i] + grad_enc[latent, i] * grad_enc[latent, i]
            input_gradient[i] += bias * W_enc[latent, i]
        norm += total
    squared[0] = norm
