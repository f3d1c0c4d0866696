"""Exact effects of many edits: the model goes on from the edited layer, with many edits in one batch.

The layers up to the hook are computed once for each item, and so is the clean run. For each edit only the sequences that it touches go on,
and sequences of many edits stand in one packed batch. What changes is given to a reducer batch by batch, so nothing grows with edits or
items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.causal.edits import Delta, Edit, delta_of, with_delta
from sae_genomics.causal.encoded import Encoded, encode_paused
from sae_genomics.causal.statistics import FeatureStatistics
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.tokens import pointers

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel
    from sae_genomics.sae.load import Encoder

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Clean:
    """A batch that is stopped at a hook, what is active there, and what the model predicts when nothing is edited."""

    model: FoundationModel
    paused: Paused
    encoder: Encoder
    encoded: Encoded
    predictions: Predictions

    @staticmethod
    def of(
        model: FoundationModel, paused: Paused, encoder: Encoder, *, layers: Sequence[int] = (), predict: bool = True
    ) -> Clean:
        """The clean run, once. layers, predict: as for `resume`; the edited runs give the same."""
        with torch.no_grad():
            predictions = model.resume(paused, layers=layers, predict=predict)
        return Clean(model, paused, encoder, encode_paused(model, paused, encoder), predictions)


@dataclass(frozen=True)
class Effects:
    """What some edits change in some sequences: edited minus clean. A pair is an edit and a sequence."""

    edit: Int64
    """[pairs], which of the edits"""
    sequence: Int64
    """[pairs], which of the paused batch's sequences"""
    ptr: Int64
    """[pairs + 1], where the pairs' tokens begin"""
    row: Int64
    """[T], row of the paused batch that each token is"""
    norm: npt.NDArray[np.float64]
    """[pairs], length of the edit: square root of the sum over tokens of the squared lengths of their changes"""
    n_edited: Int64
    """[pairs], tokens that were changed"""
    token: Float32 | None
    """[T]. Outcome `value`: change of the predicted value. `distribution`: change of the log-probability of the token itself"""
    divergence: Float32 | None
    """[T], outcome `distribution` alone: KL(clean || edited) in nats"""
    from_item: Float32 | None
    """[T], change of the value as predicted from the item's embedding"""
    embedding: Float32 | None
    """[pairs, d_model], change of the item's embedding"""
    probability: Float32 | None = None
    """[pairs, vocabulary], outcome `distribution` with `weights`: sum over tokens of weight x change of each id's probability"""
    layers: dict[int, torch.Tensor] = field(default_factory=dict)
    """layer -> [T, d_model], change of the later layers that were asked for"""

    @property
    def pair(self) -> Int64:
        """[T], the pair of each token."""
        return np.repeat(np.arange(len(self.edit)), np.diff(self.ptr))

    def sums(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """[pairs], sums over each pair's tokens of values [T]."""
        sums: npt.NDArray[np.float64] = np.bincount(self.pair, weights=values, minlength=len(self.edit)).astype(
            np.float64
        )
        return sums


Reducer = Callable[[Effects], None]


def exact_effects(
    clean: Clean,
    edits: Sequence[Edit],
    reducer: Reducer,
    *,
    batch_tokens: int,
    statistics: FeatureStatistics | None = None,
    only: Sequence[npt.ArrayLike] | None = None,
    weights: Float32 | None = None,
) -> None:
    """Measure every edit in every sequence that it touches, or in some of them; `reducer` is called with each batch's effects.

    batch_tokens: tokens of one batch. On a CPU no more than the model's `piece_tokens` are taken at once.
    only: for each edit, the sequences to measure it in, as far as it touches them; None: all.
    weights: float32 [T] of the paused batch, for `Effects.probability`; None: it is not wanted.
    """
    most = min(batch_tokens, clean.model.piece_tokens or batch_tokens)
    layers, predict = list(clean.predictions.layers), clean.predictions.embedding is not None
    with torch.no_grad():
        for parts in _batches(_touched(clean, edits, statistics, only), clean.paused.batch.lengths, most):
            sequence = np.concatenate([part.sequence for part in parts])
            taken = clean.paused.take(sequence)
            delta = _joined(parts, clean.paused.batch.item_ptr, taken.batch.item_ptr)
            found = clean.model.resume(taken, with_delta(taken.activations, delta), layers=layers, predict=predict)
            edit = np.repeat([part.edit for part in parts], [len(part.sequence) for part in parts])
            reducer(_effects(clean, taken, edit, sequence, delta, found, weights))


@dataclass(frozen=True)
class _Touched:
    """One edit in some sequences, ascending, with the changes of their rows."""

    edit: int
    sequence: Int64
    delta: Delta
    of_row: Int64  # [rows of delta], the sequence of each, as an index of `sequence`

    def cut(self, start: int, stop: int) -> _Touched:
        first, last = np.searchsorted(self.of_row, [start, stop])
        rows = slice(int(first), int(last))
        delta = Delta(self.delta.row[rows], self.delta.change[rows])
        return _Touched(self.edit, self.sequence[start:stop], delta, self.of_row[rows] - start)


def _touched(
    clean: Clean,
    edits: Sequence[Edit],
    statistics: FeatureStatistics | None,
    only: Sequence[npt.ArrayLike] | None,
) -> Iterator[_Touched]:
    ptr = clean.encoded.ptr
    for number, edit in enumerate(edits):
        delta = delta_of(clean.encoder, clean.encoded, edit, statistics)
        sequence = np.searchsorted(ptr, delta.row, side="right") - 1
        if only is not None:
            wanted = np.isin(sequence, only[number])
            delta = Delta(delta.row[wanted], delta.change[torch.from_numpy(wanted).to(delta.change.device)])
            sequence = sequence[wanted]
        distinct, of_row = np.unique(sequence, return_inverse=True)
        if len(distinct):
            yield _Touched(number, distinct, delta, of_row)


def _batches(touched: Iterator[_Touched], lengths: Int64, most: int) -> Iterator[list[_Touched]]:
    """Pairs in order, as many together as have at most `most` tokens; a longer sequence stands alone."""
    parts: list[_Touched] = []
    room = most
    for part in touched:
        ends = np.cumsum(lengths[part.sequence])
        start = done = 0
        while start < len(ends):
            stop = int(np.searchsorted(ends, done + room, side="right"))
            if stop == start and not parts:
                stop = start + 1
            if stop > start:
                parts.append(part.cut(start, stop))
                room -= int(ends[stop - 1]) - done
                start, done = stop, int(ends[stop - 1])
            if start < len(ends):
                yield parts
                parts, room = [], most
    if parts:
        yield parts


def _joined(parts: list[_Touched], ptr: Int64, taken_ptr: Int64) -> Delta:
    """All changes of a batch. ptr, taken_ptr: where sequences begin in the paused batch and in this one."""
    counts = [len(part.sequence) for part in parts]
    firsts = pointers(np.array(counts))[:-1]
    rows = [
        part.delta.row - ptr[part.sequence[part.of_row]] + taken_ptr[first + part.of_row]
        for part, first in zip(parts, firsts.tolist(), strict=True)
    ]
    return Delta(np.concatenate(rows), torch.cat([part.delta.change for part in parts]))


def _effects(
    clean: Clean, taken: Paused, edit: Int64, sequence: Int64, delta: Delta, found: Predictions, weights: Float32 | None
) -> Effects:
    batch = clean.paused.batch
    ptr = taken.batch.item_ptr
    row = batch.rows_of(sequence)
    device = taken.activations.device
    at, of_pair = torch.from_numpy(row).to(device), torch.from_numpy(sequence).to(device)
    before = clean.predictions
    token, divergence = _token_change(clean, found, at)
    pair_of_row = np.searchsorted(ptr, delta.row, side="right") - 1
    squares = delta.change.double().square().sum(dim=1).cpu().numpy()
    n = len(sequence)
    return Effects(
        edit, sequence, ptr, row, np.sqrt(np.bincount(pair_of_row, weights=squares, minlength=n)),
        np.bincount(pair_of_row, minlength=n), token, divergence,
        _difference(found.from_item, before.from_item, at), _difference(found.embedding, before.embedding, of_pair),
        None if weights is None else _probability_change(clean, found, at, taken.batch.lengths, weights[row]),
        {layer: x.float() - before.layers[layer][at].float() for layer, x in found.layers.items()},
    )  # fmt: skip


def _difference(edited: torch.Tensor | None, clean: torch.Tensor | None, at: torch.Tensor) -> Float32 | None:
    return None if edited is None or clean is None else (edited - clean[at]).float().cpu().numpy()


def _token_change(clean: Clean, found: Predictions, at: torch.Tensor) -> tuple[Float32 | None, Float32 | None]:
    """`Effects.token` and `Effects.divergence`."""
    before = clean.predictions.token
    if found.token is None or before is None or clean.model.outcome != "distribution":
        return _difference(found.token, before, at), None
    edited, unedited = found.token.log_softmax(dim=1), before[at].log_softmax(dim=1)
    own = torch.from_numpy(clean.paused.batch.token.astype(np.int64)).to(at.device)[at][:, None]
    change = (edited.gather(1, own) - unedited.gather(1, own))[:, 0]
    divergence = (unedited.exp() * (unedited - edited)).sum(dim=1)
    return change.float().cpu().numpy(), divergence.float().cpu().numpy()


def _probability_change(
    clean: Clean, found: Predictions, at: torch.Tensor, lengths: Int64, weights: Float32
) -> Float32 | None:
    """`Effects.probability`. lengths: int64 [pairs], tokens of each. weights: float32 [T]."""
    before = clean.predictions.token
    if found.token is None or before is None or clean.model.outcome != "distribution":
        return None
    change = found.token.float().softmax(dim=1) - before[at].float().softmax(dim=1)
    change *= torch.from_numpy(weights).to(change.device)[:, None]
    pair = torch.repeat_interleave(torch.arange(len(lengths)), torch.from_numpy(lengths)).to(change.device)
    summed = torch.zeros(len(lengths), change.shape[1], device=change.device).index_add_(0, pair, change)
    return summed.cpu().numpy()
