"""What a layer's rows of one shard add up to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass
class Summary:
    """What a layer's rows of a shard add up to, over finite rows: float64 sums, and which rows are not finite."""

    total: npt.NDArray[np.float64]
    total_squared_norm: float
    nonfinite_rows: list[npt.NDArray[np.int64]]
    n_rows: int = 0

    @property
    def nonfinite(self) -> npt.NDArray[np.int64]:
        return np.concatenate([np.empty(0, dtype=np.int64), *self.nonfinite_rows])

    @property
    def n_finite(self) -> int:
        return self.n_rows - sum(map(len, self.nonfinite_rows))

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """float64 [d_model]; zero when no row is finite."""
        return self.total / max(self.n_finite, 1)

    @property
    def mean_squared_norm(self) -> float:
        return self.total_squared_norm / max(self.n_finite, 1)

    def begin_with(
        self, n_rows: int, total: npt.NDArray[np.float64], squared_norm: float, nonfinite: npt.NDArray[np.int64]
    ) -> None:
        """Take over the first rows' sums, which an earlier attempt kept."""
        self.n_rows, self.total, self.total_squared_norm = n_rows, total.copy(), squared_norm
        self.nonfinite_rows = [nonfinite]
