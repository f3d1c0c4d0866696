"""Accumulator `examples`: the items in which each feature is strongest, with the tokens around its maximum."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics import artifacts
from sae_genomics.artifacts.window_text import join_units
from sae_genomics.associations.accumulators import Accumulator
from sae_genomics.associations.layer import EncodedBlock, Layer
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.kernels.arrays import ItemRows

REACH = 20  # tokens to either side of the maximum
WIDTH = 2 * REACH + 1
_SHIFT = 32


@dataclass(frozen=True)
class Windows:
    """The strongest positions: arrays [n], ordered by feature, then strength.

    feature, item, position: int64. maximum: float32. last: int64, the item's last position that counts.
    unit: int32 [n, WIDTH], units at positions position - REACH to position + REACH, -1 where none counts.
    activation: float32 [n, WIDTH].
    """

    feature: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    maximum: npt.NDArray[np.float32]
    last: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int32]
    activation: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.feature)

    def take(self, rows: npt.NDArray[np.integer]) -> Windows:
        """Some of them."""
        return Windows(*(getattr(self, field.name)[rows] for field in fields(self)))

    def strongest(self, most: int) -> Windows:
        """Up to `most` of each feature; of equals those of the first items."""
        order = np.lexsort((self.item, -self.maximum, self.feature))
        feature = self.feature[order]
        rank = np.arange(len(order)) - np.searchsorted(feature, feature)
        return self.take(order[rank < most])

    def and_also(self, other: Windows) -> Windows:
        """Both."""
        return Windows(
            *(np.concatenate([getattr(self, field.name), getattr(other, field.name)]) for field in fields(self))
        )

    @staticmethod
    def none() -> Windows:
        """Nothing yet."""
        zero = np.zeros(0, np.int64)
        empty = np.zeros((0, WIDTH))
        return Windows(
            zero, zero, zero, np.zeros(0, np.float32), zero, empty.astype(np.int32), empty.astype(np.float32)
        )


class Examples(Accumulator):
    """Keeps the strongest items of each feature while the blocks come; sequences are read from the tokens' units."""

    def __init__(self, layer: Layer):
        self.layer, self.most = layer, layer.run.config.associations.top_examples
        self.windows = Windows.none()
        self._bar = np.zeros(layer.encoder.d_sae, dtype=np.float32)  # what an item must exceed to be kept

    def add(self, block: EncodedBlock, threads: Executor) -> Iterable[Future[Any]]:
        return (threads.submit(self._add, block),)

    def _add(self, block: EncodedBlock) -> None:
        tokens, triples = block.tokens, block.triples
        candidates = strongest_rows(tokens, triples, block.item_rows.result(), self._bar).strongest(self.most)
        if not len(candidates):
            return
        self.windows = self.windows.and_also(_with_windows(candidates, tokens, triples)).strongest(self.most)
        n = np.bincount(self.windows.feature, minlength=len(self._bar))
        least = np.flatnonzero(np.diff(self.windows.feature, append=-1))  # the weakest of each feature
        full = n[self.windows.feature[least]] == self.most
        self._bar[self.windows.feature[least[full]]] = self.windows.maximum[least[full]]

    def finish(self, features: pd.DataFrame) -> pd.DataFrame:
        self.layer.write(artifacts.FEATURE_EXAMPLES, self.table())
        return features

    def table(self) -> pd.DataFrame:
        """The rows of feature_examples.parquet."""
        w, layer = self.windows, self.layer
        first = np.maximum(w.position - REACH, 0)
        at_first = w.unit[np.arange(len(w)), np.maximum(REACH - w.position, 0)]
        first += (first == 0) & (at_first < 0)  # a special token, such as <cls>, is not shown
        stop = np.minimum(w.position + REACH, w.last) + 1
        low, high = first - (w.position - REACH), stop - (w.position - REACH)
        are_letters = all(len(name) == 1 for name in layer.units.unit_id)
        names_of = np.append(layer.units.unit_id, "X" if are_letters else "·")
        rank = np.arange(len(w)) - np.searchsorted(w.feature, w.feature) + 1
        names = layer.items["name"] if "name" in layer.items else pd.Series(None, index=layer.items.index, dtype=object)
        return pd.DataFrame(
            {
                "feature": w.feature.astype(np.int32),
                "rank": rank.astype(np.int32),
                "item_index": w.item,
                "item_id": layer.items["item_id"].to_numpy(object)[w.item],
                "name": names.to_numpy(object)[w.item],
                "max_activation": w.maximum.astype(np.float64),
                "position": w.position.astype(np.int32),
                "start": first.astype(np.int32),
                "residues": [
                    join_units(names_of[row[a:b]], are_letters) for row, a, b in zip(w.unit, low, high, strict=True)
                ],
                "activations": [row[a:b] for row, a, b in zip(w.activation, low, high, strict=True)],
                "concepts": covering(layer.spans, w.item, w.position),
            }
        )


def strongest_rows(block: TokenBlock, triples: Triples, rows: ItemRows, bar: npt.NDArray[np.float32]) -> Windows:
    """Each item's maximum of each feature where it exceeds the feature's bar; windows are not filled yet.

    rows: of the block. position: the block's first row with the maximum.
    """
    above = np.flatnonzero(rows.maximum > bar[rows.feature])
    item = np.repeat(np.arange(block.n_items), np.diff(rows.ptr))[above]
    feature, maximum = rows.feature[above].astype(np.int64), rows.maximum[above]
    key = item * len(bar) + feature  # ascending
    candidate = np.flatnonzero((triples.activation > bar[triples.feature]) & (block.unit[triples.token] >= 0))[::-1]
    token = triples.token[candidate]
    item_of = np.repeat(np.arange(block.n_items), np.diff(block.item_ptr))
    index = np.searchsorted(key, item_of[token] * len(bar) + triples.feature[candidate])
    strongest = triples.activation[candidate] == maximum[index]
    row = np.empty(len(above), np.int64)
    row[index[strongest]] = token[strongest]  # the first token of equals, as it is written last
    empty = np.zeros((len(above), 0))
    return Windows(
        feature, block.first_item + item, row, maximum, item, empty.astype(np.int32), empty.astype(np.float32)
    )


def _with_windows(strongest: Windows, block: TokenBlock, triples: Triples) -> Windows:
    """Fill in the windows. strongest: as `strongest_rows` gives them, `position` the row in the block."""
    if block.position is None:
        raise ValueError("examples need the position of each token within its item")
    counted = np.flatnonzero(block.unit >= 0)
    item_of = np.repeat(np.arange(block.n_items), np.diff(block.item_ptr))
    key = (item_of[counted] << _SHIFT) | block.position[counted]
    order = np.argsort(key, kind="stable")
    counted, key = counted[order], key[order]
    item = strongest.item - block.first_item
    position = block.position[strongest.position].astype(np.int64)
    wanted = (item << _SHIFT)[:, None] + position[:, None] + np.arange(-REACH, REACH + 1)
    at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    is_counted = key[at] == wanted
    row = counted[at]
    unit = np.where(is_counted, block.unit[row], -1).astype(np.int32)
    width = np.int64(triples.feature.max(initial=0)) + 1
    of_triple = triples.token * width + triples.feature
    triple_order = np.argsort(of_triple, kind="stable")
    sorted_keys = of_triple[triple_order]
    pair = row * width + strongest.feature[:, None]
    index = np.minimum(np.searchsorted(sorted_keys, pair), len(sorted_keys) - 1)
    active = is_counted & (sorted_keys[index] == pair)
    activation = np.where(active, triples.activation[triple_order[index]], np.float32(0))
    last = block.position[counted[np.searchsorted(key, (item + 1) << _SHIFT) - 1]].astype(np.int64)
    return Windows(strongest.feature, strongest.item, position, strongest.maximum, last, unit, activation)


def covering(
    spans: pd.DataFrame | None, item: npt.NDArray[np.int64], position: npt.NDArray[np.int64]
) -> npt.NDArray[np.object_]:
    """The concepts whose spans cover each position (counted from 1): comma-separated text [n]; None without any."""
    concepts = np.full(len(item), None, dtype=object)
    if spans is None or not len(item):
        return concepts
    examples = pd.DataFrame({"example": np.arange(len(item)), "item_index": item, "position": position})
    both = examples.merge(spans[["item_index", "start", "stop", "concept"]], on="item_index")
    both = both[(both["start"] < both["position"]) & (both["position"] <= both["stop"])]
    both = both.drop_duplicates(["example", "concept"]).sort_values(["example", "concept"])
    joined = both.groupby("example")["concept"].agg(", ".join)
    concepts[joined.index.to_numpy()] = joined.to_numpy(object)
    return concepts
