"""Which features are active at which tokens of a batch, in an order in which a feature's tokens are found at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.tokens import pointers

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel
    from sae_genomics.models.editing import Paused
    from sae_genomics.sae.load import Encoder

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """Active features of a batch's tokens, ordered by feature, then row."""

    token: Int64
    """[n], row of the batch"""
    feature: npt.NDArray[np.int32]
    """[n]"""
    activation: Float32
    """[n], above 0"""
    feature_ptr: Int64
    """[d_sae + 1]; feature j's are feature_ptr[j] to feature_ptr[j + 1]"""
    unit: npt.NDArray[np.int64]
    """[T], vocabulary ids, -1 where none is known"""
    usual: npt.NDArray[np.bool_]
    """[T], tokens that are not special: the only ones that are encoded, and edited"""
    ptr: Int64
    """[sequences + 1], where sequences begin"""

    @property
    def sequence(self) -> Int64:
        """[n], the sequence of each."""
        return np.searchsorted(self.ptr, self.token, side="right") - 1

    def of(self, features: npt.NDArray[np.integer]) -> Int64:
        """Where the entries of some features stand: int64, one feature after the other."""
        start, stop = self.feature_ptr[features], self.feature_ptr[np.asarray(features) + 1]
        ends = pointers(stop - start)
        return np.repeat(start - ends[:-1], stop - start) + np.arange(ends[-1])

    def everywhere(self, features: npt.NDArray[np.integer]) -> tuple[Int64, Int64, Float32]:
        """Rows int64, features int64 and activations float32, 0 among them, of every usual token and chosen feature."""
        rows = np.flatnonzero(self.usual)
        dense = np.zeros((len(rows), len(features)), np.float32)
        at = self.of(features)
        order = np.argsort(features)
        column = order[np.searchsorted(np.asarray(features)[order], self.feature[at])]
        dense[np.searchsorted(rows, self.token[at]), column] = self.activation[at]
        return np.repeat(rows, len(features)), np.tile(np.asarray(features, np.int64), len(rows)), dense.ravel()

    def permutation(self, seed: int) -> Int64:
        """The row that takes each row's place, drawn within the usual tokens of each sequence: int64 [T]."""
        rows = np.flatnonzero(self.usual)
        sequence = np.searchsorted(self.ptr, rows, side="right")
        drawn = np.random.default_rng(seed).random(len(rows))
        found = np.arange(len(self.usual))
        found[rows] = rows[np.lexsort((drawn, sequence))]
        return found


def encode(
    encoder: Encoder,
    x: torch.Tensor,
    units: npt.NDArray[np.integer],
    *,
    ptr: Int64 | None = None,
    usual: npt.NDArray[np.bool_] | None = None,
) -> Encoded:
    """Active features of activations x, [T, d_model] on any device. The other arguments: see `edits.apply`."""
    usual = np.ones(len(x), bool) if usual is None else usual
    rows, ids = np.flatnonzero(usual), np.asarray(units, np.int64)
    given = x.detach()[torch.from_numpy(rows).to(x.device)].float()
    if encoder.means is not None:
        given = given - encoder.means.tensor(ids[rows], x.device)
    token, feature, activation = encoder.encode_sparse(given)
    order = np.argsort(feature, kind="stable")
    return Encoded(
        rows[token[order]], feature[order], activation[order],
        pointers(np.bincount(feature, minlength=encoder.d_sae)), ids, usual,
        np.array([0, len(x)]) if ptr is None else ptr,
    )  # fmt: skip


def encode_paused(model: FoundationModel, paused: Paused, encoder: Encoder) -> Encoded:
    """The same of a model that is stopped at a hook. What a hidden token is must not be told by its unit's mean."""
    batch = paused.batch
    units = batch.token.astype(np.int64)
    if paused.hidden is not None and model.mask_token is not None:
        units = np.where(paused.hidden, model.mask_token, units)
    return encode(encoder, paused.activations, units, ptr=batch.item_ptr, usual=~batch.special)
