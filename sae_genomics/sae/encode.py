"""From activations to active latents on a CPU: a matrix product a few rows at a time, and the choice of the largest.

With compute_dtype bfloat16 the product only screens: half again as many candidates as needed are taken from it, their
pre-activations are computed anew in float32, and the choice is made among these. So values and gradients are float32's,
and a latent is missed only where rounding moves it past all the spare candidates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.kernels.dots import pair_values
from sae_genomics.kernels.select import above, top_k
from sae_genomics.kernels.sparse import Entries
from sae_genomics.sae.product import linear, pieces

Float32 = npt.NDArray[np.float32]

_SPARE = 1.5
_SAMPLED_ROWS = 16


class Weights:
    """An encoder as the functions below want it.

    W_enc: float32 [d_sae, d_in]. b_enc: float32 [d_sae]. norm: float32 [d_sae], norms of the decoder's rows.
    dtype: of the matrix product.
    """

    def __init__(self, W_enc: torch.Tensor, b_enc: torch.Tensor, norm: Float32, dtype: torch.dtype = torch.float32):
        self.W_enc, self.b_enc, self.norm, self.dtype = W_enc, b_enc, norm, dtype
        self.d_sae = len(b_enc)
        self._low = (W_enc.to(dtype), b_enc.to(dtype)) if self.screens else (W_enc, b_enc)

    @property
    def screens(self) -> bool:
        """Whether the product is of lower precision than what is wanted."""
        return self.dtype != torch.float32

    def preactivations(self, centred: torch.Tensor) -> Iterator[tuple[int, Float32]]:
        """First row and float32 [rows, d_sae] of each few rows of (x - b_dec) W_enc^T + b_enc."""
        for piece in pieces(len(centred), self.d_sae):
            rows = centred[piece].to(self.dtype)
            yield piece.start, linear(rows, *self._low).float().numpy()


class TokenTopK:
    """Collects the k largest of each token from blocks of pre-activations.

    among: int32 [n], ascending, the latents to choose from; default: all. rectify: negative values become zero.
    """

    def __init__(
        self, tokens: int, k: int, weights: Weights, among: npt.NDArray[np.int32] | None = None, rectify: bool = True
    ):
        self.k, self._weights, self._among, self._rectify = k, weights, among, rectify
        taken = min(weights.d_sae, int(_SPARE * k)) if weights.screens and rectify else k
        self._indices, self._values = np.empty((tokens, taken), np.int32), np.empty((tokens, taken), np.float32)

    def add(self, start: int, hidden: Float32) -> None:
        part = slice(start, start + len(hidden))
        top_k(
            hidden, self._weights.norm, self._indices.shape[1], self._indices[part], self._values[part],
            among=self._among, rectify=self._rectify,
        )  # fmt: skip

    def entries(self, centred: torch.Tensor) -> Entries:
        """What was chosen, k entries a token."""
        indices, values = self._indices, self._values
        if indices.shape[1] > self.k:
            rows = np.repeat(np.arange(len(indices)), indices.shape[1])
            exact = exact_values(centred, self._weights, rows, indices.ravel()).reshape(indices.shape)
            score = exact * self._weights.norm[indices]
            best = np.sort(np.argpartition(score, -self.k, axis=1)[:, -self.k :], axis=1)
            indices = np.take_along_axis(indices, best, axis=1)
            values = np.maximum(np.take_along_axis(exact, best, axis=1), 0)
        tokens = len(indices)
        return Entries(np.arange(tokens + 1, dtype=np.int64) * self.k, indices.ravel(), values.ravel())


def token_top_k(centred: torch.Tensor, weights: Weights, k: int, auxiliary: TokenTopK | None = None) -> Entries:
    """The k largest h_j norm_j of each token, with max(h_j, 0) as values. `auxiliary` sees every block."""
    chosen = TokenTopK(len(centred), k, weights)
    for start, hidden in weights.preactivations(centred):
        chosen.add(start, hidden)
        if auxiliary is not None:
            auxiliary.add(start, hidden)
    return chosen.entries(centred)


def batch_top_k(
    centred: torch.Tensor, weights: Weights, k: int, auxiliary: TokenTopK | None = None
) -> tuple[Entries, float]:
    """The k x tokens largest max(h_j, 0) norm_j of a whole batch, and the smallest of them (0 where none is positive).

    A bound read off a few rows keeps candidates to about twice what is wanted; where it was too high, the product is made
    again with a lower one. `auxiliary` sees every block, once.
    """
    wanted = k * len(centred)
    bound: float | None = None
    generous = 2.0
    while True:
        rows, columns, values = [], [], []
        for start, hidden in weights.preactivations(centred):
            if bound is None:
                bound = _first_bound(hidden, weights.norm, k, generous)
            row, column, value = above(hidden, np.maximum(np.float32(bound) / weights.norm, 0))
            rows.append(row + start)
            columns.append(column)
            values.append(value)
            if auxiliary is not None:
                auxiliary.add(start, hidden)
        auxiliary = None
        row, column, value = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
        if len(row) >= wanted * (_SPARE if weights.screens else 1) or bound == 0:
            break
        generous *= 4
        bound = None if generous * k < weights.d_sae else 0.0
    if weights.screens:
        value = exact_values(centred, weights, row, column)
    score = np.maximum(value, 0) * weights.norm[column]
    keep = score > 0
    if len(score) > wanted:
        least = np.partition(score, len(score) - wanted)[len(score) - wanted]
        keep &= score >= least
        excess = int(keep.sum()) - wanted
        if excess > 0:  # ties at the last place: the first ones stay
            keep[np.flatnonzero(keep & (score == least))[-excess:]] = False
    indptr = np.searchsorted(row[keep], np.arange(len(centred) + 1)).astype(np.int64)
    smallest = float(score[keep].min()) if keep.any() else 0.0
    return Entries(indptr, column[keep], value[keep]), smallest


def _first_bound(hidden: Float32, norm: Float32, k: int, generous: float) -> float:
    """What about generous x k latents a row exceed, from a few rows; a little lower, against rounding."""
    few = hidden[:: max(1, len(hidden) // _SAMPLED_ROWS)] * norm
    position = few.size - min(few.size, int(generous * k * len(few)))
    return max(float(np.partition(few, position, axis=None)[position]) * (1 - 1e-5), 0.0)


def exact_values(
    centred: torch.Tensor, weights: Weights, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int32]
) -> Float32:
    """Float32 pre-activations of some (row, latent) pairs, float32 [n]."""
    return pair_values(centred.numpy(), weights.W_enc.numpy(), weights.b_enc.numpy(), rows, columns)
