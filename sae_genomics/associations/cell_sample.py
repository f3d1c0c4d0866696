"""Which cells are ranked: all of them, or a sample of each split that keeps rare types."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

RARE = 50


@dataclass(frozen=True)
class CellSample:
    """Annotated cells to be ranked, training cells first, held-out ones after them, each in the run's order.

    types: names of the annotated types, sorted.
    cell: int64 [n], row of cells.parquet.
    group: int64 [n], index in `types`.
    n_train: how many are training cells.
    row: int64 [cells of the run], row of this sample; -1 for cells outside.
    donor: int64 [n], number of the cell's donor, sample or batch (`data.group_key`); None without the key.
    """

    types: list[str]
    cell: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    n_train: int
    row: npt.NDArray[np.int64]
    donor: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.cell)


def sample_cells(cells: pd.DataFrame, max_cells: int, seed: int) -> CellSample:
    """Up to `max_cells` annotated cells of each split.

    cells: columns heldout, label and group, as `DataKind.read_items` gives them. Cells without a label are left out.

    A split with more cells is sampled at random in proportion to its types, except that a type keeps at least
    min(RARE, max_cells / (2 x types)) of its cells: one in ten thousand would otherwise vanish.
    """
    annotated = cells["label"].notna().to_numpy()
    types, group = np.unique(cells["label"].to_numpy(object)[annotated].astype(str), return_inverse=True)
    groups = np.full(len(cells), -1, dtype=np.int64)
    groups[annotated] = group
    heldout = cells["heldout"].to_numpy(bool)
    chosen = []
    for side, name in ((~heldout, "train"), (heldout, "heldout")):
        members = np.flatnonzero(side & annotated)
        if len(members) > max_cells:
            generator = np.random.default_rng(
                np.random.SeedSequence([seed, zlib.crc32(b"associations cells"), zlib.crc32(name.encode())])
            )
            members = _stratified(members, groups[members], len(types), max_cells, generator)
        chosen.append(members)
    cell = np.concatenate(chosen)
    row = np.full(len(cells), -1, dtype=np.int64)
    row[cell] = np.arange(len(cell))
    return CellSample([str(name) for name in types], cell, groups[cell], len(chosen[0]), row, _donors(cells, cell))


def _donors(cells: pd.DataFrame, cell: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    if "group" not in cells or cells["group"].isna().all():
        return None
    return np.unique(cells["group"].to_numpy(object)[cell].astype(str), return_inverse=True)[1].astype(np.int64)


def _stratified(
    members: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    n_groups: int,
    max_cells: int,
    generator: np.random.Generator,
) -> npt.NDArray[np.int64]:
    size = np.bincount(group, minlength=n_groups)
    least = np.minimum(size, min(RARE, max_cells // (2 * n_groups)))
    free = size - least
    quota = least + np.floor(free * ((max_cells - least.sum()) / max(free.sum(), 1))).astype(np.int64)
    shuffled = generator.permutation(len(members))
    shuffled = shuffled[np.argsort(group[shuffled], kind="stable")]
    starts = np.cumsum(size) - size
    number = np.arange(len(members)) - np.repeat(starts, size)  # within its group
    return np.sort(members[shuffled[number < np.repeat(quota, size)]])
