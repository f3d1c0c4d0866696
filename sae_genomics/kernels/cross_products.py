"""Correlations of features of two layers: the best few of each, or the largest alone.

Feature by feature: its tokens' active features of the other layer are added up in one row of sums that stays in the cache. Then the
row is read from end to end and set back to zero; that vectorises, which a list of the touched entries does not. No matrix of all
pairs is ever made. Features are cut among threads; a feature's sums are added in the order of its tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Active, Moments
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel, inner
from sae_genomics.kernels.plain import cross_products as plain

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
_FEATURES = 256
_BLOCK = 128


class _Pair(NamedTuple):
    """Two layers as the loops take them. first: by feature. second: by token. order: row of the second beside each token of the first.

    mean, spread: float64 [features of the first], spread is n sd. ratio, inverse: float64 [features of the second], n mean / sd and
    1 / sd, 0 for a feature that never varies.
    """

    first: Active
    second: Active
    order: Int64
    mean: Float64
    spread: Float64
    ratio: Float64
    inverse: Float64


class _Best(NamedTuple):
    """What is written: int32 and float64 [features, n_best]."""

    partner: npt.NDArray[np.int32]
    value: Float64


def _pair(first: Active, second: Active, order: Int64, moments: tuple[Moments, Moments]) -> _Pair:
    n, (one, other) = len(order), moments
    inverse = np.divide(1.0, other.sd, out=np.zeros_like(other.sd), where=other.sd > 0)
    return _Pair(first, second, order, one.mean, n * one.sd, n * other.mean * inverse, inverse)


@instead_of(plain.best_correlations)
def best_correlations(
    first: Active, second: Active, order: Int64, moments: tuple[Moments, Moments], n_best: int
) -> tuple[npt.NDArray[np.int32], Float64]:
    d_first = len(first.ptr) - 1
    pair = _pair(first, second, order, moments)
    found = _Best(np.full((d_first, n_best), -1, dtype=np.int32), np.zeros((d_first, n_best)))
    each_range(d_first, _FEATURES, lambda start, stop: _best_rows(pair, start, stop, found))
    return found.partner, found.value


@instead_of(plain.largest_correlations)
def largest_correlations(
    first: Active, second: Active, order: Int64, moments: tuple[Moments, Moments]
) -> tuple[Float64, Float64]:
    d_first, d_second = len(first.ptr) - 1, len(moments[1].mean)
    pair = _pair(first, second, order, moments)
    of_first = np.zeros(d_first)
    of_second = np.zeros((-(-d_first // _FEATURES), d_second))
    each_range(
        d_first,
        _FEATURES,
        lambda start, stop: _largest_rows(pair, start, stop, of_first, of_second[start // _FEATURES]),
    )
    return of_first, of_second.max(axis=0, initial=0.0)


@inner
def _add_up(pair, i, sums):  # type: ignore[no-untyped-def]
    """Sums of products of feature i with every feature of the other layer. Unsigned indices: no rule for negative ones."""
    tokens, ptr, other, activation = pair.first.unit, pair.second.ptr, pair.second.unit, pair.second.activation
    for e in range(np.uint64(pair.first.ptr[i]), np.uint64(pair.first.ptr[i + 1])):
        t = np.uint64(pair.order[np.uint64(tokens[e])])
        a = np.float64(pair.first.activation[e])
        for p in range(np.uint64(ptr[t]), np.uint64(ptr[t + np.uint64(1)])):
            sums[np.uint64(other[p])] += a * np.float64(activation[p])


@exact_kernel
def _best_rows(pair, start, stop, found):  # type: ignore[no-untyped-def]
    partner, value = found
    n_best, d_second = partner.shape[1], len(pair.ratio)
    inverse, ratio = pair.inverse, pair.ratio
    sums = np.zeros(d_second)
    for i in range(start, stop):
        spread, mean = pair.spread[i], pair.mean[i]
        if not spread > 0:
            continue
        _add_up(pair, i, sums)
        bound = 0.0  # of r spread
        for first in range(0, d_second, _BLOCK):
            last = min(first + _BLOCK, d_second)
            above = 0
            for j in range(first, last):
                above += (sums[j] * inverse[j] - mean * ratio[j]) > bound
            if above:
                for j in range(first, last):
                    r = sums[j] * inverse[j] - mean * ratio[j]
                    if r > bound:
                        at = n_best - 1
                        while at > 0 and r > value[i, at - 1]:
                            value[i, at], partner[i, at] = value[i, at - 1], partner[i, at - 1]
                            at -= 1
                        value[i, at], partner[i, at] = r, j
                        bound = value[i, n_best - 1]
            for j in range(first, last):
                sums[j] = 0.0
        for at in range(n_best):
            value[i, at] /= spread


@exact_kernel
def _largest_rows(pair, start, stop, of_first, of_second):  # type: ignore[no-untyped-def]
    d_second = len(pair.ratio)
    inverse, ratio = pair.inverse, pair.ratio
    sums, scores = np.zeros(d_second), np.empty(d_second)
    for i in range(start, stop):
        spread, mean = pair.spread[i], pair.mean[i]
        if not spread > 0:
            continue
        _add_up(pair, i, sums)
        scale = 1.0 / spread
        for j in range(d_second):
            r = (sums[j] * inverse[j] - mean * ratio[j]) * scale
            scores[j] = r
            of_second[j] = r if r > of_second[j] else of_second[j]
            sums[j] = 0.0
        best = 0.0
        for first in range(0, d_second, _BLOCK):
            last = min(first + _BLOCK, d_second)
            above = 0
            for j in range(first, last):
                above += scores[j] > best
            if above:
                for j in range(first, last):
                    best = max(best, scores[j])
        of_first[i] = best
