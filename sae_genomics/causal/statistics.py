"""What features do at training tokens: the values that an edit puts in their place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.causal.encoded import Encoded
from sae_genomics.tokens import pointers

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureStatistics:
    """Of a sample of training tokens."""

    median: Float32
    """[d_sae], over tokens where the feature is active; 0 where it never is"""
    p99: Float32
    """[d_sae], likewise the 99th percentile"""
    overall: Float32
    """[d_sae], mean over all tokens, zeros among them"""
    unit_tokens: Int64
    """[vocabulary], tokens of each unit; the last one stands for tokens of no known unit"""
    key: Int64
    """[pairs], ascending: feature x vocabulary + unit, of those that were seen together"""
    ptr: Int64
    """[pairs + 1]"""
    values: Float32
    """[n], the activations of each pair, above 0"""

    def mean(self, feature: Int64, unit: npt.NDArray[np.integer]) -> Float32:
        """The features' means at these units, zeros among them: float32 [n]. A unit that was not seen has the feature's overall mean."""
        pair, unit = self._pair(feature, unit)
        sums = np.zeros(len(self.key) + 1)
        if len(self.key):
            sums[:-1] = np.add.reduceat(self.values.astype(np.float64), self.ptr[:-1])
        tokens = self.unit_tokens[unit]
        means = sums[pair] / np.maximum(tokens, 1)
        return np.where(tokens > 0, means, self.overall[feature]).astype(np.float32)

    def draw(self, feature: Int64, unit: npt.NDArray[np.integer], seed: int) -> Float32:
        """The feature's value at a random token of each unit, 0 where it is not active there: float32 [n].

        For a unit that was not seen the token is drawn from all of them.
        """
        pair, unit = self._pair(feature, unit)
        generator = np.random.default_rng(seed)
        seen, n = self.unit_tokens[unit] > 0, len(self.unit_tokens)
        tokens = np.where(seen, self.unit_tokens[unit], self.unit_tokens.sum())
        first, last = np.searchsorted(self.key, feature * n), np.searchsorted(self.key, (feature + 1) * n)
        start = np.where(seen, np.append(self.ptr[:-1], 0)[pair], self.ptr[first])
        n_active = np.where(seen, np.append(np.diff(self.ptr), 0)[pair], self.ptr[last] - start)
        drawn = (generator.random(len(pair)) * np.maximum(tokens, 1)).astype(np.int64)
        active = drawn < n_active
        found = np.zeros(len(pair), np.float32)
        found[active] = self.values[start[active] + drawn[active]]
        return found

    def _pair(self, feature: Int64, unit: npt.NDArray[np.integer]) -> tuple[Int64, Int64]:
        """Which pair each one is (the number of pairs for one that was not seen), and the units within range."""
        n = len(self.unit_tokens)
        known = np.where((unit >= 0) & (unit < n - 1), unit, n - 1).astype(np.int64)
        wanted = feature * n + known
        at = np.searchsorted(self.key, wanted)
        seen = np.append(self.key, -1)[at] == wanted
        return np.where(seen, at, len(self.key)), known


def feature_statistics(parts: Iterable[Encoded], d_sae: int) -> FeatureStatistics:
    """Statistics of some batches of training tokens. They are all held in memory: give a sample."""
    found = list(parts)
    n = int(max((part.unit.max(initial=-1) for part in found), default=-1)) + 2
    units = [np.where(part.unit >= 0, part.unit, n - 1) for part in found]
    tokens = sum((np.bincount(u[p.usual], minlength=n) for u, p in zip(units, found, strict=True)), np.zeros(n, int))
    feature = np.concatenate([np.zeros(0, np.int64), *(part.feature.astype(np.int64) for part in found)])
    unit = np.concatenate([np.zeros(0, np.int64), *(u[p.token] for u, p in zip(units, found, strict=True))])
    values = np.concatenate([np.zeros(0, np.float32), *(part.activation for part in found)])
    by_value = np.lexsort((values, feature))
    ptr = pointers(np.bincount(feature, minlength=d_sae))
    sums = np.bincount(feature, weights=values, minlength=d_sae)
    keys = feature * n + unit
    by_key = np.argsort(keys, kind="stable")
    distinct, counts = np.unique(keys, return_counts=True)
    return FeatureStatistics(
        _quantile(values[by_value], ptr, 0.5), _quantile(values[by_value], ptr, 0.99),
        (sums / max(int(tokens.sum()), 1)).astype(np.float32), tokens, distinct, pointers(counts), values[by_key],
    )  # fmt: skip


def _quantile(ordered: Float32, ptr: Int64, q: float) -> Float32:
    """A quantile of each feature's values, as numpy's default has it; 0 where there are none. ordered: ascending per feature."""
    n = np.diff(ptr)
    if not len(ordered):
        return np.zeros(len(n), np.float32)
    place = q * np.maximum(n - 1, 0)
    low = np.floor(place).astype(np.int64)
    first = np.minimum(ptr[:-1] + low, len(ordered) - 1)
    second = np.minimum(ptr[:-1] + np.minimum(low + 1, np.maximum(n - 1, 0)), len(ordered) - 1)
    found = ordered[first] + (ordered[second] - ordered[first]) * (place - low)
    return np.where(n > 0, found, 0).astype(np.float32)
