"""Counts to values as scGPT bins them: quantile bins of a cell's own expressed genes, ties spread at random; all cells at once.

`binning` and `_digitize` of scgpt 0.2.4 (`preprocess.py`) take one cell. With x its counts above zero and

    edges = quantiles of x at n_bins - 1 evenly spaced levels from 0 to 1 (linear interpolation)
    most  = number of edges that are not above a count         least = number of edges below it
    value = ceil(u (least - most) + most),                     u uniform in [0, 1)

a count that equals no edge has least = most. One that equals several edges, as most small counts do, is spread over their bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.plain.tokenise import mix

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_TIES = np.uint64(0x7363475054)  # apart from the numbers that choose the genes of a cell that has too many


def bin_counts(counts: Float32, ptr: Int64, uniform: Float64, n_bins: int) -> Float32:
    """The value of each count: float32 [n], 1 to n_bins - 1.

    counts: [n], above zero, those of a cell one after the other. ptr: [cells + 1], where the cells begin. uniform: [n].
    """
    if not len(counts):
        return np.zeros(0, dtype=np.float32)
    cell = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    edges = quantiles(counts, ptr, np.linspace(0, 1, n_bins - 1))
    most, least = _passed(counts, cell, edges, or_equal=True), _passed(counts, cell, edges, or_equal=False)
    return np.ceil(uniform * (least - most) + most).astype(np.float32)


def quantiles(counts: Float32, ptr: Int64, levels: Float64) -> Float64:
    """Of each cell's counts: [cells, levels], rounded as `np.quantile` rounds them (NumPy's method `linear`); 0 for an empty cell."""
    lengths = np.diff(ptr)
    cell = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    # positive float32 are ordered as the integers their bits make, so one sort orders every cell
    key = (cell << np.uint64(32)) | np.ascontiguousarray(counts).view(np.uint32)
    key.sort()
    ordered = (key & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)
    last = np.maximum(lengths - 1, 0)[:, None]
    rank = last * levels
    low = np.minimum(np.floor(rank).astype(np.int64), last)
    first = np.minimum(ptr[:-1], max(len(counts) - 1, 0))[:, None]
    a = ordered[first + low]
    b = ordered[first + np.minimum(low + 1, last)]
    weight, step = rank - low, b - a
    found = np.where(weight >= 0.5, b - step * (1 - weight), a + step * weight)
    found[lengths == 0] = 0
    return found


def uniform_numbers(seed: int, rows: Int64, lengths: Int64, gene: npt.NDArray[np.integer]) -> Float64:
    """A number in [0, 1) for each gene of each cell, which depends on the seed, the cell's row and the gene alone: [n].

    rows, lengths: [cells]. gene: [n], vocabulary ids. It is the upper 53 bits of splitmix64 of these three.
    """
    state = mix(mix(np.uint64(seed) ^ _TIES) ^ rows.astype(np.uint64))
    drawn = mix(np.repeat(state, lengths) ^ gene.astype(np.uint64))
    return (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _passed(counts: Float32, cell: Int64, edges: Float64, *, or_equal: bool) -> Int64:
    """How many of its cell's edges are below each count, or equal to it: [n]. A binary search of all counts at once."""
    n_edges = edges.shape[1]
    half = 1 << (n_edges.bit_length() - 1)
    table = np.full((len(edges), 2 * half), np.inf)
    table[:, :n_edges] = edges
    flat, start = table.ravel(), cell * (2 * half)
    passed, step = np.zeros(len(counts), dtype=np.int64), half
    while step:
        edge = flat[start + passed + (step - 1)]
        passed += step * (edge <= counts if or_equal else edge < counts)
        step >>= 1
    return passed
