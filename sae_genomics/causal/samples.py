"""Some items with what a layer has of them: what steering, knock-outs and the input score are measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.extraction.cutting import cut_pieces
from sae_genomics.activations.extraction.tokenised import tokenised_items
from sae_genomics.sae.loss_recovered import evenly
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.models.editing import Paused, Predictions
    from sae_genomics.run import Run

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """Items and their tokens. A long item may be several sequences, one after the other."""

    rows: Int64
    """[items], rows of `read_items`, ascending"""
    tokens: Tokens
    item: Int64
    """[sequences], position in `rows`"""

    @property
    def usual(self) -> Bools:
        """[T], rows that an SAE reads and that count: no special tokens, each token of an item once."""
        return self.tokens.counted

    def of_tokens(self) -> Int64:
        """The item of each token: int64 [T], positions in `rows`."""
        return np.repeat(self.item, self.tokens.lengths)

    def take(self, items: npt.ArrayLike) -> Sample:
        """Some of the items. items: ascending positions in `rows`."""
        chosen = np.asarray(items, dtype=np.int64)
        sequences = np.flatnonzero(np.isin(self.item, chosen))
        return Sample(self.rows[chosen], self.tokens.take(sequences), np.searchsorted(chosen, self.item[sequences]))


def read_sample(run: Run, model: FoundationModel, rows: Int64) -> Sample:
    """The tokens that items have in their shards. rows: of `read_items`, ascending."""
    inputs = run.kind.read_items(run, ["item"])["item"].to_numpy(np.int64)[rows]
    tokens = tokenised_items(run, model, rows).tokens
    order = np.argsort(inputs, kind="stable")
    first = tokens.item[tokens.item_ptr[:-1]]
    return Sample(rows, tokens, order[np.searchsorted(inputs[order], first)])


def evenly_of(rows: Int64, wanted: int) -> Int64:
    """At most `wanted` of some rows, at even distances."""
    return rows[evenly(len(rows), wanted)]


def paused_batches(
    model: FoundationModel, sample: Sample, layer: int, hook: str, batch_tokens: int, hidden: Bools | None = None
) -> Iterator[tuple[Int64, Int64, Paused]]:
    """The sample in batches: (its sequences, its rows of tokens, the model stopped at the hook)."""
    tokens = sample.tokens
    for sequences in cut_pieces(tokens.lengths, batch_tokens):
        rows = tokens.rows_of(sequences)
        with torch.inference_mode():
            yield (
                sequences,
                rows,
                model.pause(tokens.take(sequences), layer, hook, None if hidden is None else hidden[rows]),
            )


def resumed_with(
    model: FoundationModel, paused: Paused, vectors: Float32, counted: Bools, batch_tokens: int
) -> Iterator[tuple[Int64, Int64, Int64, Predictions]]:
    """What the model predicts when a vector is added to every counted token: h' = h + v, in float32.

    vectors: float32 [n, d_model]; each is tried on every sequence, many in the batch axis. counted: bool [T] of `paused`.

    Yields the number of the vector of each sequence [s], the sequence of `paused` [s], the rows of `paused` [t], and the
    predictions of these s sequences and t tokens.
    """
    lengths, n = paused.batch.lengths, paused.batch.n_items
    which, sequences = np.repeat(np.arange(len(vectors)), n), np.tile(np.arange(n), len(vectors))
    offered = torch.from_numpy(np.ascontiguousarray(vectors)).to(paused.activations.device)
    for piece in cut_pieces(lengths[sequences], batch_tokens):
        some = sequences[piece]
        rows = paused.batch.rows_of(some)
        with torch.inference_mode():
            taken = paused.take(some)
            x = taken.activations
            number = torch.from_numpy(np.repeat(which[piece], lengths[some])).to(x.device)
            share = torch.from_numpy(counted[rows].astype(np.float32)).to(x.device)
            edited = (x.float() + offered[number] * share[:, None]).to(x.dtype)
            yield which[piece], some, rows, model.resume(taken, edited)


def rows32(values: torch.Tensor) -> Float32:
    """A tensor as float32 on the CPU."""
    found: Float32 = values.detach().float().cpu().numpy()
    return found


def mean_rows(values: Float32, group: Int64, n_groups: int, counted: Bools | None = None) -> Float64:
    """The mean row of each group: float64 [groups, width]; zeros for a group without rows. values: [T, width]."""
    if counted is not None:
        values, group = values[counted], group[counted]
    from scipy.sparse import csr_matrix

    sums = csr_matrix(
        (np.ones(len(group)), (group, np.arange(len(group)))), shape=(n_groups, len(group))
    ) @ values.astype(np.float64)
    return np.asarray(sums / np.maximum(np.bincount(group, minlength=n_groups), 1)[:, None])
