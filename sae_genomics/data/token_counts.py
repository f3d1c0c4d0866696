"""How many tokens items have: read by the model, and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sae_genomics.run import Run


class TokenCounts:
    """Tokens of each item: `lengths` read by the model, `stored` on disk; int64 [items], special ones included.

    ordinary: int64 [items], tokens that may be stored and are not special. read: int64 [items], those that the model reads, windows'
    overlaps and special ones included. n_special: special tokens stored of each item; int64 [items] where items differ.
    """

    def __init__(
        self,
        run: Run,
        ordinary: npt.NDArray[np.int64],
        read: npt.NDArray[np.int64],
        n_special: int | npt.NDArray[np.int64],
    ):
        self.ordinary = ordinary
        self.n_special = np.asarray(n_special, dtype=np.int64)
        self.lengths = read
        self.stored = self.stored_with(run.config.activations.tokens_per_cell)
        self._edges = [run.shard_items(shard)[0] for shard in range(run.n_shards)]
        self.shard_stored = np.add.reduceat(self.stored, self._edges)
        self.largest_shard = int(np.add.reduceat(self.lengths, self._edges).max())
        self.read = int(self.lengths.sum())

    def stored_with(self, tokens_per_item: int | None) -> npt.NDArray[np.int64]:
        """Tokens stored of each item under that setting."""
        ordinary = self.ordinary if tokens_per_item is None else np.minimum(self.ordinary, tokens_per_item)
        return ordinary + self.n_special

    def shards(self) -> list[dict[str, int]]:
        """For plan.json."""
        sizes = np.diff([*self._edges, len(self.stored)])
        return [
            {"shard": shard, "items": int(size), "tokens": int(n_tokens)}
            for shard, (size, n_tokens) in enumerate(zip(sizes, self.shard_stored, strict=True))
        ]
