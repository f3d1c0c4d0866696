"""Sparse (token, feature, activation) triples: what every feature statistic is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TokenBlock:
    """What is known about some whole cells' tokens, special tokens among them.

    slot: int32 [T], the token's gene as a position in genes.parquet's slots; -1 for tokens that never count
        (special tokens, rows that are not finite).
    expression: float32 [T], counts.
    cell_ptr: int64 [cells + 1]; rows of the block's cell c are cell_ptr[c] to cell_ptr[c + 1].
    heldout: bool [cells].
    first_cell: place of the block's first cell in cells.parquet.
    """

    slot: npt.NDArray[np.int32]
    expression: npt.NDArray[np.float32]
    cell_ptr: npt.NDArray[np.int64]
    heldout: npt.NDArray[np.bool_]
    first_cell: int = 0

    @property
    def n_cells(self) -> int:
        return len(self.cell_ptr) - 1

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(frozen=True)
class Triples:
    """Activations above zero, ascending by token.

    token: int64 [n], row within the block.
    feature: int32 [n].
    activation: float32 [n].
    """

    token: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int32]
    activation: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.token)

    @staticmethod
    def ordered(
        token: npt.NDArray[np.integer], feature: npt.NDArray[np.integer], activation: npt.NDArray[np.floating]
    ) -> Triples:
        """Triples in any order, as an encoder gives them."""
        row = np.asarray(token, dtype=np.int64)
        latent, value = np.asarray(feature, dtype=np.int32), np.asarray(activation, dtype=np.float32)
        if bool(np.any(row[1:] < row[:-1])):
            order = np.argsort(row, kind="stable")
            row, latent, value = row[order], latent[order], value[order]
        return Triples(row, latent, value)
