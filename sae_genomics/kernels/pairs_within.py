"""Pairs of a network within lists: a list's genes are marked, then the partners of each are looked up among the marks.

The marks take one byte per gene, so that they stay in a fast cache. A gene's partners stand side by side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel
from sae_genomics.kernels.plain import pairs_within as plain

_DRAWS = 8  # per range handed to a thread


@instead_of(plain.pairs_within)
def pairs_within(
    lists: sparse.csr_matrix, names: npt.NDArray[np.int32], upper: sparse.csr_matrix
) -> npt.NDArray[np.int32]:
    found = np.zeros((len(names), lists.shape[0]), dtype=np.int32)
    list_ptr, pair_ptr = (each.indptr.astype(np.int64) for each in (lists, upper))
    gene, partner = (each.indices.astype(np.int32) for each in (lists, upper))

    def count(first: int, last: int) -> None:
        marks = np.zeros(upper.shape[0], dtype=np.uint8)
        _count(list_ptr, gene, names[first:last], pair_ptr, partner, marks, found[first:last])

    each_range(len(names), _DRAWS, count)
    return found


@exact_kernel
def _count(list_ptr, gene, names, pair_ptr, partner, marks, found):  # type: ignore[no-untyped-def]
    for draw in range(len(names)):
        name = names[draw]
        for number in range(len(list_ptr) - 1):
            start, stop = list_ptr[number], list_ptr[number + 1]
            for i in range(start, stop):
                marks[name[gene[i]]] = 1
            total = np.uint32(0)
            for i in range(start, stop):
                g = name[gene[i]]
                for k in range(pair_ptr[g], pair_ptr[g + 1]):
                    total += marks[np.uint32(partner[k])]
            for i in range(start, stop):
                marks[name[gene[i]]] = 0
            found[draw, number] = total
