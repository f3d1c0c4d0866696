"""What both signs of linear units add up to per gene, and their maxima per cell: what `gene_sums` and `cell_sums` are to features.

Of the positive and the negative part of a standardised value at least one is zero, but nearly every pair of unit and gene
occurs. So the sums are dense, and no triples are made. A block's tokens are taken gene by gene, so that a gene's sums stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.gene_sums import PairSums, by_gene
from sae_genomics.associations.linear_units import LinearUnits
from sae_genomics.associations.triples import TokenBlock
from sae_genomics.kernels.compiled import exact_kernel


class SignedSums:
    """Gene sums of the positive and the negative part of standardised projections.

    A pair's sums are added in the order of its tokens, whatever the size of the blocks.
    """

    def __init__(self, units: LinearUnits, n_genes: int):
        self.units = units
        shape = (n_genes, 2, units.n_components)  # sign: positive, negative
        self._activation_weight, self._activation = np.zeros(shape), np.zeros(shape)
        self._n_active = np.zeros(shape, dtype=np.int32)

    def add(self, block: TokenBlock, projections: npt.NDArray[np.float32]) -> None:
        """projections: float32 [T, n], of the block's rows."""
        gene_ptr, order = by_gene(block.unit, len(self._activation))
        _add_rows(
            projections, gene_ptr, order, block.weight, self.units.mean, self.units.inverse_std,
            self._activation_weight, self._activation, self._n_active,
        )  # fmt: skip

    def by_unit(self, components_at_once: int | None = None) -> Iterator[PairSums]:
        """The sums in blocks of consecutive units, as GeneSums gives them of features. At least one block."""
        n_genes, _, n_components = self._activation.shape
        if components_at_once is None:
            components_at_once = max(1, (1 << 21) // max(n_genes, 1))
        for first in range(0, max(n_components, 1), components_at_once):
            columns = slice(first, min(first + components_at_once, n_components))

            n_active = _by_unit(self._n_active, columns)
            unit, gene = np.nonzero(n_active)
            yield PairSums(
                2 * first,
                np.searchsorted(unit, np.arange(len(n_active) + 1)),
                gene.astype(np.int32),
                _by_unit(self._activation_weight, columns)[unit, gene],
                _by_unit(self._activation, columns)[unit, gene],
                n_active[unit, gene].astype(np.int64),
            )


def _by_unit(sums: npt.NDArray[Any], components: slice) -> npt.NDArray[Any]:
    """[genes, signs, components] -> [units, genes] of some components."""
    rows: npt.NDArray[Any] = sums[:, :, components].transpose(2, 1, 0).reshape(-1, len(sums))
    return rows


@exact_kernel
def _add_rows(  # type: ignore[no-untyped-def]
    y, gene_ptr, order, expression, mean, inverse_std, activation_weight, activation, n_active
):
    for s in range(len(gene_ptr) - 1):
        for o in range(gene_ptr[s], gene_ptr[s + 1]):
            t = order[o]
            e = np.float64(expression[t])
            for j in range(len(mean)):
                z = (y[t, j] - mean[j]) * inverse_std[j]
                positive = np.float64(z) if z > 0 else 0.0
                activation_weight[s, 0, j] += positive * e
                activation[s, 0, j] += positive
                n_active[s, 0, j] += 1 if z > 0 else 0
                negative = -np.float64(z) if z < 0 else 0.0
                activation_weight[s, 1, j] += negative * e
                activation[s, 1, j] += negative
                n_active[s, 1, j] += 1 if z < 0 else 0


def signed_maxima(
    units: LinearUnits, projections: npt.NDArray[np.float32], block: TokenBlock, cells: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The largest +z and the largest -z over each cell's gene tokens, unit by unit: float32 [cells, 2n].

    projections: float32 [T, n], of the block's rows. cells: which of the block's cells. A cell without gene tokens gets 0, the mean.
    """
    found = np.zeros((len(cells), units.n_components, 2), dtype=np.float32)
    _maxima(projections, block.unit, block.item_ptr, cells, units.mean, units.inverse_std, found)
    return found.reshape(len(cells), units.n_units)


@exact_kernel
def _maxima(y, gene, item_ptr, cells, mean, inverse_std, found):  # type: ignore[no-untyped-def]
    n = len(mean)
    largest, smallest = np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(len(cells)):
        largest[:], smallest[:] = -np.inf, np.inf
        counted = 0
        for t in range(item_ptr[cells[i]], item_ptr[cells[i] + 1]):
            if gene[t] < 0:
                continue
            counted += 1
            for j in range(n):
                largest[j] = max(largest[j], y[t, j])
                smallest[j] = min(smallest[j], y[t, j])
        if counted:
            for j in range(n):
                found[i, j, 0] = (largest[j] - mean[j]) * inverse_std[j]
                found[i, j, 1] = -(smallest[j] - mean[j]) * inverse_std[j]
