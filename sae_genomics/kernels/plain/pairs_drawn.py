"""How many pairs of a network lie within lists whose genes are drawn anew, each among the genes of its bin, without repeats.

Genes of a list are drawn one after the other; one that the draw has already is drawn again. That gives every choice of different
genes of the same bins the same probability. Random numbers are SplitMix64 (Steele, Lea and Flood 2014, OOPSLA), one sequence per list
and draw, so that they depend on neither the other lists nor the number of threads:

    state = mix(mix(seed + key G) + draw G),    next: state += G, mix(state),    mix of 64 bits, G the golden ratio

A random number z picks position floor((z >> 32) size / 2^32) of a bin.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Drawing

Bits = npt.NDArray[np.uint64]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def pairs_drawn(
    drawing: Drawing, first: int, last: int, seed: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """For the draws of these numbers, both [last - first, lists]: pairs within the list, int32; and the sum over all pairs of its genes of
    the product of their degrees, int64.
    """
    found = np.zeros((last - first, len(drawing.key)), dtype=np.int32)
    products = np.zeros(found.shape, dtype=np.int64)
    size = np.diff(drawing.bin_ptr)
    n_genes = len(drawing.bins)
    known = np.zeros((n_genes, n_genes), dtype=bool)
    known[np.repeat(np.arange(n_genes), np.diff(drawing.pair_ptr)), drawing.partner] = True
    with np.errstate(over="ignore"):
        for number, key in enumerate(drawing.key.astype(np.uint64)):
            state = _mix(_mix(np.uint64(seed) + key * GOLDEN) + np.arange(first, last, dtype=np.uint64) * GOLDEN)
            taken = np.zeros((last - first, n_genes), dtype=bool)
            chosen: list[npt.NDArray[np.int64]] = []
            for gene in drawing.gene[drawing.list_ptr[number] : drawing.list_ptr[number + 1]]:
                group = drawing.bins[gene]
                new, open_draws = np.empty(last - first, dtype=np.int64), np.arange(last - first)
                while len(open_draws):
                    state[open_draws] += GOLDEN
                    z = _mix(state[open_draws]) >> np.uint64(32)
                    at = (z * np.uint64(size[group])) >> np.uint64(32)
                    new[open_draws] = drawing.bin_gene[drawing.bin_ptr[group] + at.astype(np.int64)]
                    open_draws = open_draws[taken[open_draws, new[open_draws]]]
                taken[np.arange(last - first), new] = True
                found[:, number] += sum(known[new, other] | known[other, new] for other in chosen)
                products[:, number] += sum(drawing.degree[new] * drawing.degree[other] for other in chosen)
                chosen.append(new)
    return found, products


def _mix(z: Bits) -> Bits:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
