"""`sae.centre: unit`: the mean activation of each unit (gene), which is subtracted from what an SAE reads.

Most of an activation says which gene the token is. An SAE that reads

    c = x - mean[unit of x]

spends its features on what the cell's context adds. What it gives back to the model is mean[unit] + decode(encode(c)).
`measure_means.py` measures the means on training cells; this file holds them, reads and writes them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sae_genomics.atomic import atomic_path
from sae_genomics.content import content_hash
from sae_genomics.errors import DamagedArtifact

MEANS_FILE = "unit_means.safetensors"
_ROWS_AT_ONCE = 512
Float32 = npt.NDArray[np.float32]
Units = npt.NDArray[np.integer]


class UnitMeans:
    """The mean activation of each unit.

    unit_id: int64 [units], ascending: vocabulary ids. means: float32 [units, d_model], shrunk as `measure_means.shrunk` says.
    global_mean: float32 [d_model], what every other unit gets. n_tokens: int64 [units], training tokens of each.
    prior_tokens: the prior count that they were shrunk with. content: hash of the file they were read from; empty where there is none.
    """

    def __init__(
        self,
        unit_id: npt.NDArray[np.int64],
        means: Float32,
        global_mean: Float32,
        n_tokens: npt.NDArray[np.int64],
        prior_tokens: float,
        content: str = "",
    ):
        self.unit_id, self.n_tokens, self.prior_tokens, self.content = unit_id, n_tokens, prior_tokens, content
        self._table = np.concatenate([means, global_mean[None]])  # the last row: every other unit
        self.means, self.global_mean = self._table[:-1], self._table[-1]
        self._row = np.full(int(unit_id.max(initial=-1)) + 2, len(unit_id), dtype=np.int64)
        self._row[unit_id] = np.arange(len(unit_id))
        self._on_device: torch.Tensor | None = None

    @property
    def d_model(self) -> int:
        return self.means.shape[1]

    def of(self, units: Units) -> Float32:
        """Float32 [n, d_model], the mean of each row's unit. units: vocabulary ids [n]; an id that is not known gets the global mean."""
        found: Float32 = np.take(self._table, self._rows(units), axis=0)
        return found

    def subtract(self, x: Float32, units: Units) -> None:
        """x - mean, in place."""
        rows = self._rows(units)
        for start in range(0, len(x), _ROWS_AT_ONCE):  # few enough that their means stay in the cache
            some = slice(start, start + _ROWS_AT_ONCE)
            x[some] -= np.take(self._table, rows[some], axis=0)

    def centred(self, x: Float32, units: Units) -> Float32:
        """x - mean, as a new array."""
        out = np.array(x, dtype=np.float32, order="C")
        self.subtract(out, units)
        return out

    def tensor(self, units: Units, device: torch.device) -> torch.Tensor:
        """The same as `of`, on a device, which keeps a copy of all means."""
        if device.type == "cpu":
            return torch.from_numpy(self.of(units))
        if self._on_device is None or self._on_device.device != device:
            self._on_device = torch.from_numpy(self._table).to(device)
        return self._on_device[torch.from_numpy(self._rows(units)).to(device)]

    def _rows(self, units: Units) -> npt.NDArray[np.int64]:
        other = len(self._row) - 1
        known = (units >= 0) & (units < other)
        rows: npt.NDArray[np.int64] = self._row[np.where(known, units, other)]
        return rows


def save_means(path: Path, means: UnitMeans) -> str:
    """Write them atomically; returns the content hash of the file. The same means give the same bytes."""
    tensors = {
        "unit_id": means.unit_id.astype(np.int64), "means": means.means, "global_mean": means.global_mean,
        "n_tokens": means.n_tokens.astype(np.int64), "prior_tokens": np.array([means.prior_tokens]),
    }  # fmt: skip
    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, temporary)
        return content_hash(temporary)


def load_means(path: Path) -> UnitMeans:
    """Read them back. Raises FileNotFoundError, DamagedArtifact naming the file when it cannot be read."""
    try:
        tensors = load_file(path)
        means = UnitMeans(
            tensors["unit_id"], tensors["means"], tensors["global_mean"], tensors["n_tokens"],
            float(tensors["prior_tokens"][0]), content_hash(path),
        )  # fmt: skip
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, IndexError) as error:
        raise DamagedArtifact(f"{path} cannot be read: {error}", path) from None
    return means
