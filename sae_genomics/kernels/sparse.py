"""Decoding and gradients from the active entries alone: nothing of size tokens x k x d_in is ever made.

By token, entries give reconstructions; sorted by latent, they give the gradient of each latent's decoder and encoder row
while that row stays in the first-level cache. Formulas and shapes stand in the plain versions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, kernel, rows_at_once
from sae_genomics.kernels.plain import sparse as plain
from sae_genomics.kernels.plain.sparse import Entries, LatentEntries

__all__ = ["Entries", "LatentEntries", "by_latent", "decode", "latent_gradients"]

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_LATENTS = 128


class _Gradients(NamedTuple):
    """What is written for some latents. input: dL/d(x - b_dec) summed over tokens, float32 [d_in]. squared: norm, float64 [1]."""

    enc: Float32
    dec: Float32
    b_enc: Float32
    input: Float32
    squared: npt.NDArray[np.float64]


@instead_of(plain.decode)
def decode(x: Float32, bias: Float32, W_dec: Float32, entries: Entries, widths: Int64) -> tuple[Float32, Float32]:
    """Errors of the reconstructions from the first widths[0], widths[1], ... latents, and their squared norms."""
    levels, (tokens, d_in) = len(widths), x.shape
    error = np.empty((levels, tokens, d_in), np.float32)
    squared = np.empty((levels, tokens), np.float32)
    each_range(
        tokens,
        rows_at_once(levels * d_in),
        lambda start, stop: _decode_rows(x, bias, W_dec, entries, widths, start, stop, error, squared),
    )
    return error, squared


@kernel
def _decode_rows(x, bias, W_dec, entries, widths, start, stop, error, squared):  # type: ignore[no-untyped-def]
    indptr, indices, values = entries
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
            for i in range(d_in):
                error[level, token, i] = sums[i]
            # A loop of its own: one that writes rows as well would add up in another order whenever the row lies less than a few
            # vector steps behind `sums` (the compiler tests for that), so that equal steps would log unequal losses.
            total = np.float32(0)
            for i in range(d_in):
                total += sums[i] * sums[i]
            squared[level, token] = total


@instead_of(plain.by_latent)
def by_latent(parts: list[tuple[Entries, Int32, bool]], d_sae: int) -> LatentEntries:
    """Sort entries by latent; within a latent, part by part, and tokens ascending within each part."""
    indptr = np.zeros(d_sae + 1, np.int64)
    for entries, _, signed in parts:
        _count_latents(entries.indices, entries.values, signed, indptr)
    np.cumsum(indptr, out=indptr)
    total = int(indptr[-1])
    found = LatentEntries(indptr, np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.float32))
    position = indptr[:-1].copy()
    for entries, first_row, signed in parts:
        _scatter_entries(entries, first_row, signed, position, found)
    return found


@kernel
def _count_latents(indices, values, signed, indptr):  # type: ignore[no-untyped-def]
    for i in range(indices.shape[0]):
        if signed or values[i] > 0:
            indptr[indices[i] + 1] += 1


@kernel
def _scatter_entries(entries, first_row, signed, position, found):  # type: ignore[no-untyped-def]
    indptr, indices, values = entries
    for token in range(indptr.shape[0] - 1):
        for i in range(indptr[token], indptr[token + 1]):
            if signed or values[i] > 0:
                latent = indices[i]
                at = position[latent]
                position[latent] = at + 1
                found.tokens[at] = token
                found.rows[at] = first_row[latent] + token
                found.values[at] = values[i]


@instead_of(plain.latent_gradients)
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

    Returns dL/d(x - b_dec) summed over tokens, float32 [d_in], and the squared norm of the three gradients.
    """
    d_sae, d_in = W_dec.shape
    n_ranges = -(-d_sae // _LATENTS)
    input_gradient, squared = np.zeros((n_ranges, d_in), np.float32), np.zeros(n_ranges, np.float64)

    def work(start: int, stop: int) -> None:
        number = start // _LATENTS
        out = _Gradients(grad_enc, grad_dec, grad_b_enc, input_gradient[number], squared[number : number + 1])
        _gradient_rows(centred, gradient, W_enc, W_dec, entries, start, stop, out)

    each_range(d_sae, _LATENTS, work)
    return input_gradient.sum(axis=0), float(squared.sum())


@kernel
def _gradient_rows(centred, gradient, W_enc, W_dec, entries, start, stop, out):  # type: ignore[no-untyped-def]
    indptr, tokens, rows, values = entries
    grad_enc, grad_dec, grad_b_enc, input_gradient, squared = out
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
