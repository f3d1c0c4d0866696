"""What both signs of linear units add up to per gene, and their maxima per cell: what `gene_sums` and `cell_sums` are to features.

Of the positive and the negative part of a standardised value at least one is zero, but nearly every pair of unit and gene
occurs. So the sums are dense, and no triples are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.gene_sums import PairSums
from sae_genomics.associations.linear_units import LinearUnits
from sae_genomics.associations.triples import TokenBlock
from sae_genomics.kernels.arrays import SignedTotals
from sae_genomics.kernels.grouped_sums import add_signed


class SignedSums:
    """Gene sums of the positive and the negative part of standardised projections.

    A pair's sums are added in the order of its tokens, whatever the size of the blocks.
    """

    def __init__(self, units: LinearUnits, n_genes: int):
        self.units = units
        self._totals = SignedTotals.zeros(n_genes, units.n_components)

    def add(self, block: TokenBlock, projections: npt.NDArray[np.float32]) -> None:
        """projections: float32 [T, n], of the block's rows."""
        units = self.units
        add_signed(self._totals, block.unit, block.weight, projections, units.mean, units.inverse_std)

    def by_unit(self, components_at_once: int | None = None) -> Iterator[PairSums]:
        """The sums in blocks of consecutive units, as GeneSums gives them of features. At least one block."""
        n_genes, _, n_components = self._totals.activation.shape
        if components_at_once is None:
            components_at_once = max(1, (1 << 21) // max(n_genes, 1))
        for first in range(0, max(n_components, 1), components_at_once):
            columns = slice(first, min(first + components_at_once, n_components))
            n_active = _by_unit(self._totals.n_active, columns)
            unit, gene = np.nonzero(n_active)
            yield PairSums(
                2 * first,
                np.searchsorted(unit, np.arange(len(n_active) + 1)),
                gene.astype(np.int32),
                _by_unit(self._totals.activation_weight, columns)[unit, gene],
                _by_unit(self._totals.activation, columns)[unit, gene],
                n_active[unit, gene].astype(np.int64),
            )


def _by_unit(sums: npt.NDArray[Any], components: slice) -> npt.NDArray[Any]:
    """[genes, signs, components] -> [units, genes] of some components."""
    rows: npt.NDArray[Any] = sums[:, :, components].transpose(2, 1, 0).reshape(-1, len(sums))
    return rows


def signed_maxima(
    units: LinearUnits, projections: npt.NDArray[np.float32], block: TokenBlock, cells: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The largest +z and the largest -z over each cell's gene tokens, unit by unit: float32 [cells, 2n].

    projections: float32 [T, n], of the block's rows. cells: which of the block's cells. A cell without gene tokens gets 0, the mean.
    """
    maxima = np.zeros((len(cells), units.n_components, 2), dtype=np.float32)
    for row, cell in zip(maxima, cells.tolist(), strict=True):
        tokens = slice(block.item_ptr[cell], block.item_ptr[cell + 1])
        y = projections[tokens][block.unit[tokens] >= 0]
        if len(y):
            row[:, 0] = (y.max(axis=0) - units.mean) * units.inverse_std
            row[:, 1] = -(y.min(axis=0) - units.mean) * units.inverse_std
    return maxima.reshape(len(cells), units.n_units)
