"""Means and shares over groups with their intervals, and random directions to compare a concept vector with.

Rows belong to a concept and to a group; all concepts are done at once. Rows of one group are no replicates of each other.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse, stats

DRAWS = 1000
FEWEST = 10  # groups, from which on a bootstrap's interval is given
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """Of each concept, float64 [concepts]: value, and the ends of its 95 % interval, NaN where none can be given; n_groups: int64."""

    value: Float64
    low: Float64
    high: Float64
    n_groups: Int64


def generator(seed: int, about: str, layer: int) -> np.random.Generator:
    """Random numbers of one purpose in one layer."""
    return np.random.default_rng([seed, zlib.crc32(about.encode()), layer])


def cells_of(concept: Int64, group: Int64) -> tuple[Int64, Int64]:
    """The distinct pairs of a concept and a group: which concept each is of, and which pair each row belongs to."""
    width = int(group.max(initial=-1)) + 1
    pairs, cell = np.unique(concept * max(width, 1) + group, return_inverse=True)
    return pairs // max(width, 1), cell.reshape(-1)


def grouped_mean(
    values: npt.ArrayLike, concept: Int64, group: Int64, n_concepts: int, random: np.random.Generator
) -> Interval:
    """Mean over groups of each group's mean, with a bootstrap of whole groups (weights are Poisson draws, so that all concepts go at once).

    values: [rows]; NaN is left out. concept, group: int64 [rows].
    """
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    values, concept, group = values[known], concept[known], group[known]
    of_cell, cell = cells_of(concept, group)
    means = np.bincount(cell, values, len(of_cell)) / np.maximum(np.bincount(cell, minlength=len(of_cell)), 1)
    n_groups = np.bincount(of_cell, minlength=n_concepts)
    member = sparse.csr_matrix((np.ones(len(of_cell)), (of_cell, np.arange(len(of_cell)))), (n_concepts, len(of_cell)))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (member @ means) / n_groups
        weight = random.poisson(1.0, (len(of_cell), DRAWS)).astype(np.float64)
        drawn = (member @ (weight * means[:, None])) / (member @ weight)
    low, high = np.full(n_concepts, np.nan), np.full(n_concepts, np.nan)
    enough = n_groups >= FEWEST
    if enough.any():
        low[enough], high[enough] = np.nanquantile(drawn[enough], [0.025, 0.975], axis=1)
    return Interval(value, low, high, n_groups)


def grouped_share(hits: npt.ArrayLike, of: npt.ArrayLike, concept: Int64, group: Int64, n_concepts: int) -> Interval:
    """sum(hits) / sum(of), with Wilson's interval at the number of observations that the groups are worth.

    n_effective = n / deff, deff = var_groups / (p (1 - p) / n), at least 1, where var_groups is the variance of a ratio of sums over G
    groups; the quantile is t's with G - 1 degrees of freedom. Where p is 0 or 1 groups say nothing of their variance, and
    n_effective is G. (Wilson 1927, J. Am. Stat. Assoc. 22:209; Korn and Graubard 1998, Surv. Methodol. 24:193.)
    NaN for one group, and where nothing was counted. hits, of: [rows].
    """
    of_cell, cell = cells_of(concept, group)
    above = np.bincount(cell, np.asarray(hits, np.float64), len(of_cell))
    all_of = np.bincount(cell, np.asarray(of, np.float64), len(of_cell))
    used = all_of > 0
    of_cell, above, all_of = of_cell[used], above[used], all_of[used]
    n_groups = np.bincount(of_cell, minlength=n_concepts)
    n, k = np.bincount(of_cell, all_of, n_concepts), np.bincount(of_cell, above, n_concepts)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = k / n
        squares = np.bincount(of_cell, (above - p[of_cell] * all_of) ** 2, n_concepts)
        variance = squares * n_groups / (n_groups - 1) / n**2
        simple = p * (1 - p) / n
        effective = np.where(simple > 0, n / np.maximum(variance / simple, 1.0), np.minimum(n_groups, n))
        z = stats.t.ppf(0.975, np.maximum(n_groups - 1, 1))
        centre = (p + z**2 / (2 * effective)) / (1 + z**2 / effective)
        reach = z / (1 + z**2 / effective) * np.sqrt(p * (1 - p) / effective + z**2 / (4 * effective**2))
        known = n_groups > 1
        low = np.where(known, np.minimum(np.maximum(centre - reach, 0.0), p), np.nan)
        high = np.where(known, np.maximum(np.minimum(centre + reach, 1.0), p), np.nan)
    return Interval(p, low, high, n_groups)


def random_directions(n: int, d: int, random: np.random.Generator) -> Float64:
    """Unit vectors in every direction alike: float64 [n, d]."""
    return unit_rows(random.standard_normal((n, d)))


def covariance_directions(x: npt.NDArray[np.floating], n: int, random: np.random.Generator) -> Float64:
    """Unit vectors with the covariance of the rows of x, as the difference of two random sets of rows has: float64 [n, d]."""
    centred = np.asarray(x, np.float64) - np.asarray(x, np.float64).mean(axis=0)
    return unit_rows(random.standard_normal((n, len(centred))) @ centred)


def unit_rows(vectors: npt.NDArray[np.floating]) -> Float64:
    """Each row with length 1, float64; zeros stay zeros."""
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def p_of(value: npt.ArrayLike, null: npt.NDArray[np.floating]) -> Float64:
    """(1 + draws of at least the value) / (1 + draws). value: [concepts]; null: [concepts, draws], NaN draws left out. NaN for NaN."""
    value = np.asarray(value, np.float64)
    drawn = np.isfinite(null).sum(axis=1)
    exceed = (np.where(np.isfinite(null), null, -np.inf) >= value[:, None] - 1e-12).sum(axis=1)
    return np.where(np.isfinite(value) & (drawn > 0), (1 + exceed) / (1 + drawn), np.nan)
