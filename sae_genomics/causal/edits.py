"""Edits of a layer's activations through its SAE.

An edit names features, a set of them or a direction, and what becomes of their activations z at each token:

    ablate   z' = 0, the feature's mean at that unit, or a value drawn from other tokens of that unit
    scale    z' = amount z
    clamp    z' = amount m,        m: the feature's median, or 99th percentile, over training tokens where it is active
    add      z' = z + amount; with a direction v in place of features, h' = h + amount v

and the model goes on with

    h' = h + (decode(z') - decode(z)) = h + sum_j (z'_j - z_j) W_dec[j]

in float32. The features are not chosen again (no second TopK), and what the SAE does not reconstruct stays in h. Only tokens of which some z
changes get a sum at all: an edit that changes none leaves h as it is, bit for bit. Special tokens are never edited, because no SAE is
trained on them.

Two further fields make the nulls of an edit out of it. `turned`: each token's change keeps its length, and points in another direction.
`permuted`: the changes go to other tokens of the same sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.causal.encoded import Encoded, encode
from sae_genomics.causal.statistics import FeatureStatistics

if TYPE_CHECKING:
    from sae_genomics.sae.load import Encoder

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Edit:
    """What is done to a layer's activations."""

    kind: Literal["ablate", "scale", "clamp", "add"]
    features: npt.NDArray[np.integer] | None = None
    """[n], distinct; None where a direction is added at all tokens"""
    amount: float = 0.0
    """scale: factor. clamp: multiple of the feature's own reference value. add: what is added, in units of z or of the direction."""
    replacement: Literal["zero", "mean", "resample"] = "zero"
    """What an ablated activation becomes"""
    where: Literal["active", "all"] = "active"
    """active: tokens where the feature is active (add: where any of the features is). all: every token that is not special"""
    direction: Float32 | None = None
    """[d_model], what is added instead of the features' own decoder rows"""
    reference: Literal["median", "p99"] = "median"
    """Of which value `clamp` sets a multiple"""
    turned: Float32 | None = None
    """[d_model], of any length but 0: where all changes point to, each with the length it has"""
    permuted: int | None = None
    """Seed by which the changes go to other tokens of their sequence"""
    seed: int = 0
    """Of the values that `resample` draws"""

    def __post_init__(self) -> None:
        if self.direction is not None and self.kind != "add":
            raise ValueError(f"a direction can only be added; kind is {self.kind}")
        if self.features is None and (self.direction is None or self.where == "active"):
            raise ValueError("without features an edit adds a direction to all tokens")
        if self.features is not None and len(np.unique(self.features)) != len(self.features):
            raise ValueError("features are named twice")

    @property
    def needs_statistics(self) -> bool:
        """Whether it asks what the feature does in training items."""
        return self.kind == "clamp" or (self.kind == "ablate" and self.replacement != "zero")


@dataclass(frozen=True)
class Delta:
    """What an edit adds to some rows: row int64 [n], ascending and distinct; change float32 [n, d_model], no row of it all 0."""

    row: Int64
    change: torch.Tensor


def apply(
    encoder: Encoder,
    x: torch.Tensor,
    units: npt.NDArray[np.integer],
    edit: Edit,
    *,
    ptr: Int64 | None = None,
    usual: npt.NDArray[np.bool_] | None = None,
    statistics: FeatureStatistics | None = None,
) -> torch.Tensor:
    """The edited activations: float32 [T, d_model]; x is not written to.

    x: activations [T, d_model]. units: vocabulary ids [T], -1 where none is known. ptr: int64 [sequences + 1], where sequences begin;
    None: there is one. usual: bool [T], tokens that may be edited; None: all. statistics: for edits that need them.
    """
    encoded = encode(encoder, x, units, ptr=ptr, usual=usual)
    return with_delta(x, delta_of(encoder, encoded, edit, statistics))


def with_delta(x: torch.Tensor, delta: Delta) -> torch.Tensor:
    """x with the changes added: float32 [T, d_model], a new tensor."""
    edited = x.to(torch.float32, copy=True)
    if len(delta.row):
        edited[torch.from_numpy(delta.row).to(x.device)] += delta.change.to(x.device)
    return edited


def delta_of(encoder: Encoder, encoded: Encoded, edit: Edit, statistics: FeatureStatistics | None = None) -> Delta:
    """What the edit adds to which rows. statistics: for edits that need them; ValueError without."""
    if edit.needs_statistics and statistics is None:
        raise ValueError(f"to {edit.kind} this edit needs the features' statistics")
    if edit.direction is not None:
        row = _rows(encoded, edit)
        direction = torch.from_numpy(edit.direction).to(encoder.device)
        change = (edit.amount * direction).expand(len(row), -1)
    else:
        row, feature, amount = _changes(encoded, edit, statistics)
        row, change = _decoded(encoder, row, feature, amount)
    moved = (change != 0).any(dim=1).cpu().numpy() if len(row) else np.zeros(0, bool)
    if not moved.all():
        row, change = row[moved], change[torch.from_numpy(moved).to(change.device)]
    if edit.turned is not None:
        other = torch.from_numpy(edit.turned).to(change)
        change = change.norm(dim=1, keepdim=True) * (other / other.norm())
    if edit.permuted is not None:
        row = encoded.permutation(edit.permuted)[row]
        order = np.argsort(row)
        row, change = row[order], change[torch.from_numpy(order).to(change.device)]
    return Delta(row, change)


def _rows(encoded: Encoded, edit: Edit) -> Int64:
    """Rows to which a direction is added."""
    if edit.where == "all" or edit.features is None:
        return np.flatnonzero(encoded.usual)
    return np.unique(encoded.token[encoded.of(edit.features)])


def _changes(
    encoded: Encoded, edit: Edit, statistics: FeatureStatistics | None
) -> tuple[Int64, npt.NDArray[np.int64], Float32]:
    """z' - z of each (row, feature) that the edit touches: rows int64 [n], ascending; features int64 [n]; float32 [n]."""
    assert edit.features is not None
    nothing_at_zero = edit.kind == "scale" or (edit.kind == "ablate" and edit.replacement == "zero")
    if edit.where == "active" or nothing_at_zero:
        at = encoded.of(edit.features)
        row, feature, z = encoded.token[at], encoded.feature[at].astype(np.int64), encoded.activation[at]
    else:
        row, feature, z = encoded.everywhere(edit.features)
    new = new_values(encoded, edit, statistics, row, feature, z)
    order = np.argsort(row, kind="stable")
    return row[order], feature[order], (new - z)[order]


def new_values(
    encoded: Encoded, edit: Edit, statistics: FeatureStatistics | None, row: Int64, feature: Int64, z: Float32
) -> Float32:
    """z' of each (row, feature): float32 [n]. row, feature: int64 [n]. z: float32 [n]. statistics: for edits that need them."""
    if edit.kind == "scale":
        return np.float32(edit.amount) * z
    if edit.kind == "add":
        return z + np.float32(edit.amount)
    if edit.kind == "ablate" and edit.replacement == "zero":
        return np.zeros_like(z)
    assert statistics is not None
    if edit.kind == "clamp":
        reference = statistics.median if edit.reference == "median" else statistics.p99
        return np.float32(edit.amount) * reference[feature]
    units = encoded.unit[row]
    if edit.replacement == "mean":
        return statistics.mean(feature, units)
    return statistics.draw(feature, units, edit.seed)


def _decoded(encoder: Encoder, row: Int64, feature: Int64, amount: Float32) -> tuple[Int64, torch.Tensor]:
    """Distinct rows, and sum_j amount_j W_dec[j] of each: float32 [rows, d_model]."""
    device = encoder.device
    if not len(row):
        return row, torch.zeros(0, encoder.d_in, device=device)
    distinct, first = np.unique(row, return_index=True)
    change = torch.nn.functional.embedding_bag(
        torch.from_numpy(feature).to(device), encoder.W_dec, torch.from_numpy(first).to(device), mode="sum",
        per_sample_weights=torch.from_numpy(amount).to(device),
    )  # fmt: skip
    return distinct, change
