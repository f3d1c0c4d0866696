"""Random proteins, spans, groups and activations, and what a plain loop says of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sae_genomics.associations.spans.counts import N_LEVELS, ConceptCounts
from sae_genomics.associations.spans.scores import ConceptSizes
from sae_genomics.associations.spans.segments import Concepts, span_block
from sae_genomics.associations.triples import TokenBlock
from sae_genomics.kernels.arrays import Active


@dataclass
class MadeUp:
    """Proteins. unit: -1 at both ends and at unknown letters. dense: [tokens, units], activations. spans, groups: as a data kind gives them."""

    unit: np.ndarray
    position: np.ndarray
    item_ptr: np.ndarray
    dense: np.ndarray
    spans: pd.DataFrame
    groups: pd.Series | None

    @property
    def n_items(self) -> int:
        return len(self.item_ptr) - 1

    def concepts(self, seed: int = 0) -> Concepts:
        return Concepts.of(self.spans, self.groups, self.n_items, seed)

    def blocks(self, items_at_once: int):
        """(TokenBlock, dense rows) of whole proteins."""
        for first in range(0, self.n_items, items_at_once):
            last = min(first + items_at_once, self.n_items)
            a, b = self.item_ptr[first], self.item_ptr[last]
            block = TokenBlock(
                self.unit[a:b].astype(np.int32), np.ones(b - a, np.float32), self.item_ptr[first : last + 1] - a,
                np.zeros(last - first, bool), first, self.position[a:b].astype(np.int32),
            )  # fmt: skip
            yield block, self.dense[a:b]

    def counted(self, items_at_once: int = 3, seed: int = 0) -> tuple[ConceptCounts, ConceptSizes]:
        """What the pass adds up, block by block."""
        concepts = self.concepts(seed)
        counts, sizes = ConceptCounts(self.dense.shape[1], concepts), ConceptSizes(concepts)
        for block, dense in self.blocks(items_at_once):
            here = span_block(block, concepts)
            sizes.add(here)
            counts.add(here, active_of(dense[here.row]))
        return counts, sizes


def active_of(dense: np.ndarray) -> Active:
    row, unit = np.nonzero(dense)
    ptr = np.searchsorted(row, np.arange(len(dense) + 1))
    return Active(ptr, unit.astype(np.int32), dense[row, unit].astype(np.float32))


def made_up(rng: np.random.Generator, n_items: int, n_units: int, n_concepts: int, grouped: bool) -> MadeUp:
    lengths = rng.integers(3, 30, n_items)
    item_ptr = np.concatenate([[0], np.cumsum(lengths + 2)])
    n = item_ptr[-1]
    unit = rng.integers(0, 4, n)
    unit[rng.random(n) < 0.05] = -1
    unit[item_ptr[:-1]] = unit[item_ptr[1:] - 1] = -1
    position = np.concatenate([np.arange(length + 2) for length in lengths])
    dense = np.where(rng.random((n, n_units)) < rng.choice([0.05, 0.3, 0.7]), rng.lognormal(0, 2, (n, n_units)), 0)
    rows = []
    for item in np.flatnonzero(rng.random(n_items) < 0.8):
        for _ in range(rng.integers(1, 4)):
            start = rng.integers(0, lengths[item] - 1)
            concept = f"C{rng.integers(n_concepts)}"
            rows.append((item, start, min(start + rng.integers(1, 9), lengths[item]), concept, concept.lower()))
    spans = pd.DataFrame(rows, columns=["item_index", "start", "stop", "concept", "name"])
    groups = None
    if grouped:
        groups = pd.Series(
            [None if rng.random() < 0.1 else f"g{rng.integers(1 + n_items // 2)}" for _ in range(n_items)]
        )
    return MadeUp(unit, position, item_ptr, dense.astype(np.float32), spans, groups)


def plain_counts(data: MadeUp, concepts: Concepts, thresholds: np.ndarray) -> dict[str, np.ndarray]:
    """Every count by loops over proteins, units, concepts and thresholds; halves and thresholds as given."""
    n_units, n = data.dense.shape[1], len(concepts)
    result = {name: np.zeros((n_units, n, 2, N_LEVELS), int) for name in ("tp", "active", "runs", "all_runs", "hit")}
    result |= {name: np.zeros((n, 2), int) for name in ("residues", "spans", "all")}
    result |= {name: np.zeros((n_units, n)) for name in ("observed", "inside", "share")}
    names = list(concepts.concept)
    annotated = set(data.spans["item_index"])
    for item in range(data.n_items):
        if item not in annotated:
            continue
        rows = np.arange(data.item_ptr[item], data.item_ptr[item + 1])
        rows = rows[data.unit[rows] >= 0]
        position = data.position[rows]
        mine = data.spans[data.spans["item_index"] == item]
        tested = {
            int(concepts.merged.concept[i]) for i in np.flatnonzero(concepts.tested) if concepts.merged.item[i] == item
        }
        for c in range(n):
            half = int((concepts.halves.by_item if concepts.halves.single[c] else concepts.halves.by_group)[item])
            own = mine[mine["concept"] == names[c]]
            masks = [
                (position > start) & (position <= stop) for start, stop in zip(own["start"], own["stop"], strict=True)
            ]
            masks = [mask for mask in masks if mask.any()]
            inside = np.any(masks, axis=0) if masks else np.zeros(len(rows), bool)
            result["residues"][c, half] += inside.sum()
            result["spans"][c, half] += len(masks)
            result["all"][c, half] += len(rows)
            for u in range(n_units):
                a = data.dense[rows, u]
                for level in range(N_LEVELS):
                    on = (a > 0) & (a >= thresholds[u, level])
                    result["tp"][u, c, half, level] += (on & inside).sum()
                    result["active"][u, c, half, level] += on.sum()
                    result["hit"][u, c, half, level] += sum((on & mask).any() for mask in masks)
                    run, touches = None, []
                    for i in range(len(rows)):
                        if on[i]:
                            if run is None or position[i] != position[i - 1] + 1:
                                touches.append(False)
                            run = True
                            touches[-1] |= bool(inside[i])
                        else:
                            run = None
                    result["all_runs"][u, c, half, level] += len(touches)
                    result["runs"][u, c, half, level] += sum(touches)
                if c in tested and inside.any() and (a > 0).any():
                    result["observed"][u, c] += 1
                    result["inside"][u, c] += a[inside].max() > a[~inside].max(initial=0)
                    result["share"][u, c] += inside.mean()
    return result
