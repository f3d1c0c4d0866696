"""What features do on stored activations of some items: their units on training items, and in which held-out items they fire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.associations.stream import tokens_of
from sae_genomics.causal.encoded import Encoded
from sae_genomics.causal.statistics import FeatureStatistics, feature_statistics
from sae_genomics.causal.targets import Fired
from sae_genomics.data.units import Units
from sae_genomics.progress import stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import Encoder
from sae_genomics.sae.loss_recovered import evenly
from sae_genomics.tokens import pointers, ranges

Ints = npt.NDArray[np.int64]
MOST_VALUES = 1 << 24  # activations of all features that are held in memory


@dataclass(frozen=True)
class Active:
    """Triples of a block of items, and what its tokens are. item: int64 [T], row of the run's items. unit: int32 [T], -1 counts for nothing.

    token: int64 [n], row of the block. feature: int32 [n]. activation: float32 [n].
    """

    item: Ints
    unit: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    token: Ints
    feature: npt.NDArray[np.int32]
    activation: npt.NDArray[np.float32]


def active_in(run: Run, layer: int, encoder: Encoder, units: Units, items: Ints) -> Iterator[Active]:
    """The features of some items' stored rows, in blocks. items: ascending rows of `read_items`. Only these items are read."""
    at_once = run.config.associations.batch_tokens
    lookup = units.lookup()
    for shard in range(run.n_shards):
        start, stop = run.shard_items(shard)
        wanted = items[(items >= start) & (items < stop)] - start
        if not len(wanted):
            continue
        tokens = read_tokens(run.tokens_file(shard))
        unit, lengths = tokens.units(lookup), np.diff(tokens.item_ptr)[wanted]
        with open_activations(run.activations_file(layer, shard)) as file:
            unit[file.nonfinite_rows] = -1
            block = (np.cumsum(lengths) - 1) // at_once
            for number in np.unique(block).tolist():
                stop_point()
                here = wanted[block == number]
                spans = [(int(tokens.item_ptr[item]), int(tokens.item_ptr[item + 1])) for item in here]
                rows = ranges(tokens.item_ptr[here], np.diff(tokens.item_ptr)[here])
                x = np.concatenate([file.rows(*span) for span in spans])
                counts = unit[rows] >= 0
                rows, x = rows[counts], x[counts]
                token, feature, activation = encoder.encode_sparse(encoder.input(x, tokens_of(units, unit[rows])))
                of_item = start + tokens.item_in_shard[rows]
                yield Active(of_item, unit[rows], tokens.weight[rows], token, feature, activation)


def fired_on(run: Run, layer: int, encoder: Encoder, units: Units, items: Ints) -> Fired:
    """What every feature does on some items: sums per feature and unit."""
    return fired_and_values(run, layer, encoder, units, items, np.zeros(0, np.int64))[0]


def fired_and_values(
    run: Run, layer: int, encoder: Encoder, units: Units, items: Ints, features: Ints
) -> tuple[Fired, FeatureStatistics]:
    """The same, and each activation of some of the features, which are held in memory. features: int64 [n]; of others nothing is known."""
    wanted = np.zeros(encoder.d_sae, bool)
    wanted[features] = True
    parts: list[Encoded] = []
    shape = (encoder.d_sae, len(units))
    activation, n_active = sparse.csr_matrix(shape), sparse.csr_matrix(shape)
    tokens, weight = np.zeros(len(units), np.int64), np.zeros(len(units))
    for block in active_in(run, layer, encoder, units, items):
        where = (block.feature, block.unit[block.token])
        activation = activation + sparse.csr_matrix((block.activation.astype(np.float64), where), shape=shape)
        n_active = n_active + sparse.csr_matrix((np.ones(len(block.token)), where), shape=shape)
        tokens += np.bincount(block.unit, minlength=len(units))
        weight += np.bincount(block.unit, block.weight, len(units))
        if len(features):
            parts.append(_encoded(block, units, wanted))
    activation.sort_indices()
    n_active.sort_indices()
    fired = Fired(activation, n_active, tokens, weight / np.maximum(tokens, 1), int(tokens.sum()))
    return fired, feature_statistics(parts, encoder.d_sae)


def replacing_values(
    run: Run, layer: int, encoder: Encoder, units: Units, items: Ints, fired: Fired
) -> FeatureStatistics:
    """The values that `mean` and `resample` put in place of any feature's, from as many of the items, at even distances, as have at most
    MOST_VALUES activations. fired: of the items."""
    n = int(len(items) * min(1.0, MOST_VALUES / max(fired.n_active.sum(), 1)))
    some = items[evenly(len(items), max(n, 1))]
    return fired_and_values(run, layer, encoder, units, some, np.arange(encoder.d_sae))[1]


def _encoded(block: Active, units: Units, wanted: npt.NDArray[np.bool_]) -> Encoded:
    """A block's activations of the wanted features. wanted: bool [d_sae]."""
    kept = np.flatnonzero(wanted[block.feature])
    kept = kept[np.argsort(block.feature[kept], kind="stable")]
    unit = tokens_of(units, block.unit).astype(np.int64)
    return Encoded(
        block.token[kept], block.feature[kept], block.activation[kept],
        pointers(np.bincount(block.feature[kept], minlength=len(wanted))), unit, np.ones(len(unit), bool),
        np.array([0, len(unit)]),
    )  # fmt: skip


def fires_in(run: Run, layer: int, encoder: Encoder, units: Units, items: Ints) -> sparse.csc_matrix:
    """Tokens on which each feature is active in each of some items: csc [items, features]."""
    shape = (len(items), encoder.d_sae)
    counts = sparse.csr_matrix(shape)
    for block in active_in(run, layer, encoder, units, items):
        row = np.searchsorted(items, block.item[block.token])
        counts = counts + sparse.csr_matrix((np.ones(len(row)), (row, block.feature)), shape=shape)
    return counts.tocsc()
