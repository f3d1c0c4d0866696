"""The units of a run: what its tokens stand for. units.parquet has one row per unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts import UNITS


@dataclass(frozen=True)
class Units:
    """Arrays [units]. token: int32, vocabulary id. unit_id, unit_name: text. counts: float64, over all items that are used."""

    token: npt.NDArray[np.int32]
    unit_id: npt.NDArray[np.object_]
    unit_name: npt.NDArray[np.object_]
    counts: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.token)

    def lookup(self, n_tokens: int = 0) -> npt.NDArray[np.int32]:
        """The unit of each vocabulary id, -1 for tokens that are none: int32 [largest token of a unit + 1, at least n_tokens]."""
        table = np.full(max(int(self.token.max(initial=-1)) + 1, n_tokens), -1, dtype=np.int32)
        table[self.token] = np.arange(len(self.token))
        return table

    def write(self, path: Path) -> None:
        """As units.parquet."""
        frame = pd.DataFrame(
            {
                "unit": np.arange(len(self.token), dtype=np.int32),
                "unit_id": self.unit_id,
                "unit_name": self.unit_name,
                "token": self.token,
                "counts": self.counts,
            }
        )
        UNITS.write(path, frame)

    @staticmethod
    def read(path: Path) -> Units:
        """From units.parquet. Raises DamagedArtifact when it cannot be read."""
        frame = UNITS.read(path, ["token", "unit_id", "unit_name", "counts"])
        return Units(
            frame["token"].to_numpy(np.int32),
            frame["unit_id"].to_numpy(object),
            frame["unit_name"].to_numpy(object),
            frame["counts"].to_numpy(np.float64),
        )
