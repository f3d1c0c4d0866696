"""All pairs of layers against each other: matches, fates and persistence, one pair in memory at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from sae_genomics.artifacts import FATES, MATCHES, PERSISTENCE
from sae_genomics.cross_layer.activations import LayerActivations, SparseRows
from sae_genomics.cross_layer.correlations import Features, largest, permuted_within
from sae_genomics.cross_layer.fates import Step, fate_table, step
from sae_genomics.cross_layer.floor import UntrainedFloor
from sae_genomics.cross_layer.matching import (
    Matches,
    best_pair,
    decoder_cosine,
    jaccard,
    match_layers,
    null_of,
    top_units,
)
from sae_genomics.cross_layer.persistence import Found, missing, persistence_table
from sae_genomics.cross_layer.section import CrossLayerConfig
from sae_genomics.cross_layer.untrained import Untrained

Directions = Callable[[int], np.ndarray]


@dataclass
class Comparison:
    """activations: of all layers. untrained: of SAEs on an untrained model. directions: layer -> its decoder float32 [d_sae, d_in]; None where layers do not share a space.

    advance: told of each pair that is done; it raises Interrupted when the task is to stop.
    """

    activations: LayerActivations
    untrained: Untrained
    settings: CrossLayerConfig
    seed: int
    directions: Directions | None
    advance: Callable[[float], None]
    steps: list[Step] = field(default_factory=list)
    found: list[tuple[int, int, Found]] = field(default_factory=list)
    floors: dict[tuple[int, int], Found] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.activations
        self.layers = sorted(given.layers)
        self.features = {layer: Features.of(given.layers[layer], given.d_sae[layer]) for layer in self.layers}
        self.units = {layer: self._units(given.layers[layer], given.d_sae[layer]) for layer in self.layers}
        rng = np.random.default_rng([self.seed, zlib.crc32(b"cross_layer.permuted")])
        self.floor = UntrainedFloor(given, self.untrained, self.seed, self.settings.null_draws)
        self.orders = [permuted_within(given.unit, rng) for _ in range(self.settings.null_draws)]

    def _units(self, rows: SparseRows, d_sae: int) -> sparse.csr_matrix:
        return top_units(rows, self.activations.unit, d_sae, self.activations.n_units, self.settings.top_units)

    def write(self, folder: Path) -> None:
        """Leave matches, fates and persistence."""
        note = None if self.activations.heldout else "no item is held out: all items were sampled"
        MATCHES.write_blocks(folder / MATCHES.file, self._matches())
        second, least = self._second_seeds(), self.settings.min_correlation
        again = {layer: found.is_found(least) for layer, found in second.items()}
        FATES.write(folder / FATES.file, fate_table(self.layers, self.features, self.steps, again), note=note)
        table = persistence_table(self.found, second, self.floors, least)
        said = "; ".join(filter(None, [note, self._part(), missing(second, self.untrained.why)]))
        PERSISTENCE.write(folder / PERSISTENCE.file, table, note=said or None)

    def _part(self) -> str:
        """On which tokens the untrained model's SAEs are compared, where not on all."""
        n, n_all = len(self.untrained.token), len(self.activations)
        return (
            "" if self.untrained.why or n == n_all else f"floor_untrained is on {n:,} of the {n_all:,} sampled tokens"
        )

    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of layers that are matched, earlier layer first; consecutive ones are always among them."""
        return list(combinations(self.layers, 2) if self.settings.pairs == "all" else pairwise(self.layers))

    def _matches(self) -> Iterator[pd.DataFrame]:
        consecutive = set(pairwise(self.layers))
        for a, b in self.pairs():
            first, second = self.features[a], self.features[b]
            null = null_of(first, second, self.orders)
            matches = match_layers(first, second, null, self.settings.candidates, self.settings.min_correlation)
            pairs = matches.pairs
            best_a = best_pair(pairs.first, pairs.correlation, first.d_sae)
            best_b = best_pair(pairs.second, pairs.correlation, second.d_sae)
            self.found.append((a, b, Found(_values(best_a, pairs.correlation), null.first, first.live)))
            self.found.append((b, a, Found(_values(best_b, pairs.correlation), null.second, second.live)))
            for pair in ((a, b), (b, a)):
                if (found := self.floor.of(*pair)) is not None:
                    self.floors[pair] = found
            if (a, b) in consecutive:
                self.steps.append(step(first, second, matches, self.settings.min_correlation))
            kept = matches.linked.copy()
            for best in (best_a, best_b):
                kept[best[best >= 0]] = True
            yield self._table(a, b, matches, np.flatnonzero(kept))
            self.advance(1)

    def _table(self, a: int, b: int, matches: Matches, rows: np.ndarray) -> pd.DataFrame:
        pairs = matches.pairs.take(rows)
        cosine = np.full(len(pairs), np.nan)
        if self.directions is not None:
            cosine = decoder_cosine(self.directions(a), self.directions(b), pairs)
        return pd.DataFrame(
            {
                "layer_a": a, "feature_a": pairs.first, "layer_b": b, "feature_b": pairs.second, "correlation": pairs.correlation,
                "null": matches.null[rows], "linked": matches.linked[rows], "mutual": matches.mutual[rows],
                "assigned": matches.assigned[rows], "cosine": cosine,
                "top_units_jaccard": jaccard(self.units[a], self.units[b], pairs),
            }
        )  # fmt: skip

    def _second_seeds(self) -> dict[int, Found]:
        """Layer -> its features among those of the second seed's SAE."""
        found = {}
        for layer, rows in self.activations.second.items():
            first, second = self.features[layer], Features.of(rows, self.activations.d_sae[layer])
            identity = np.arange(len(self.activations))
            null = null_of(first, second, self.orders)
            found[layer] = Found(largest(first, second, identity)[0], null.first, first.live)
            self.advance(1)
        return found


def _values(best: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Each feature's best correlation, 0 without one."""
    return np.where(best >= 0, r[best], 0.0) if len(r) else np.zeros(len(best))
