"""Pairs of a network within drawn lists: the genes of a draw are marked, then the partners of each are looked up among the marks.

The marks take one byte per gene, so that they stay in a fast cache, and tell as well which genes a draw has already. A gene's partners
stand side by side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Drawing
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel, inner
from sae_genomics.kernels.plain import pairs_drawn as plain

_DRAWS = 8  # per range handed to a thread


@instead_of(plain.pairs_drawn)
def pairs_drawn(
    drawing: Drawing, first: int, last: int, seed: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    found = np.zeros((last - first, len(drawing.key)), dtype=np.int32)
    products = np.zeros(found.shape, dtype=np.int64)
    longest = int(np.diff(drawing.list_ptr).max(initial=0))

    def draw(start: int, stop: int) -> None:
        marks, chosen = np.zeros(len(drawing.bins), dtype=np.uint8), np.empty(longest, dtype=np.int64)
        _draw(drawing, first + start, np.uint64(seed), marks, chosen, found[start:stop], products[start:stop])

    each_range(last - first, _DRAWS, draw)
    return found, products


@inner
def _mix(z):  # type: ignore[no-untyped-def]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@exact_kernel
def _draw(drawing, first, seed, marks, chosen, found, products):  # type: ignore[no-untyped-def]
    golden = np.uint64(0x9E3779B97F4A7C15)
    list_ptr, gene, key, bins = drawing.list_ptr, drawing.gene, drawing.key, drawing.bins
    bin_ptr, bin_gene, pair_ptr, partner = drawing.bin_ptr, drawing.bin_gene, drawing.pair_ptr, drawing.partner
    degree = drawing.degree
    for draw in range(len(found)):
        for number in range(len(key)):
            state = _mix(_mix(seed + np.uint64(key[number]) * golden) + np.uint64(first + draw) * golden)
            start = list_ptr[number]
            n = list_ptr[number + 1] - start
            for i in range(n):
                group = bins[gene[start + i]]
                begin = bin_ptr[group]
                size = np.uint64(bin_ptr[group + 1] - begin)
                while True:
                    state += golden
                    at = ((_mix(state) >> np.uint64(32)) * size) >> np.uint64(32)
                    new = bin_gene[begin + np.int64(at)]
                    if marks[new] == 0:
                        break
                marks[new] = 1
                chosen[i] = new
            total, ends, squares = np.uint32(0), np.int64(0), np.int64(0)
            for i in range(n):
                ends += degree[chosen[i]]
                squares += degree[chosen[i]] * degree[chosen[i]]
                for k in range(pair_ptr[chosen[i]], pair_ptr[chosen[i] + 1]):
                    total += marks[np.uint32(partner[k])]
            for i in range(n):
                marks[chosen[i]] = 0
            found[draw, number] = total
            products[draw, number] = (ends * ends - squares) // 2
