"""Sparse (token, feature, activation) triples: what every feature statistic is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Active


@dataclass(frozen=True)
class TokenBlock:
    """What is known about some whole items' tokens, special tokens among them.

    unit: int32 [T], the token's unit as a row of the run's units; -1 for tokens that never count (special tokens, rows that are
        not finite, letters that the units do not name).
    weight: float32 [T]; counts, for cells.
    item_ptr: int64 [items + 1]; rows of the block's item i are item_ptr[i] to item_ptr[i + 1].
    heldout: bool [items].
    first_item: row of the block's first item among the run's items.
    position: int32 [T], within the item; None where nothing asks for it.
    """

    unit: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    item_ptr: npt.NDArray[np.int64]
    heldout: npt.NDArray[np.bool_]
    first_item: int = 0
    position: npt.NDArray[np.int32] | None = None

    @property
    def n_items(self) -> int:
        return len(self.item_ptr) - 1

    def __len__(self) -> int:
        return len(self.unit)


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

    def by_token(self, n_tokens: int) -> Active:
        """The same as rows of the block's `n_tokens` tokens, as kernels take them."""
        ptr = np.concatenate([[0], np.cumsum(np.bincount(self.token, minlength=n_tokens))])
        return Active(ptr, self.feature, self.activation)

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
