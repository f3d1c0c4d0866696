"""Groups of cells that have something in common: donors, samples or batches (`data.group_key`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.config import DataConfig
from sae_genomics.data.h5ad import CellTable
from sae_genomics.errors import UserError

LEAST_FOR_A_TEST = 3  # held-out groups below which no p-value over groups is given
_MISSED = 0.05  # how far the held-out share may be from what was asked for before that is said
_USUAL_NAMES = (
    "donor", "donor_id", "patient", "patient_id", "individual", "subject", "subject_id", "sample", "sample_id", "batch", "orig.ident",
)  # fmt: skip


@dataclass(frozen=True)
class Groups:
    """The group of every cell that is used. key: the obs column. name: categorical [cells], nothing missing."""

    key: str
    name: pd.Categorical

    def numbers(self, heldout: npt.NDArray[np.bool_]) -> dict[str, int]:
        """What plan.json says of them."""
        return {"n_groups": len(set(self.name.codes)), "n_heldout_groups": len(set(self.name.codes[heldout]))}


def read_groups(
    data: DataConfig, table: CellTable, rows: npt.NDArray[np.int64], cell_type_key: str | None
) -> Groups | None:
    """The groups of the cells `rows`; None without `data.group_key`.

    A cell without a group is refused, and is not made a group of its own: nobody knows whether its donor is on the other side of the
    split, and every such cell would count as one more replicate. Empty text and the text `nan` are no group either.

    Raises UserError when there is no such column, when a cell has no group, and when the groups cannot be held out whole.
    """
    key = data.group_key
    if key is None:
        return None
    column = table.column(key, "data.group_key")
    if key == cell_type_key:
        raise UserError(
            f"data.group_key and data.cell_type_key are both {key!r}; set data.group_key to the obs column of donors, samples or batches"
        )
    name = pd.Categorical(column[rows]).remove_unused_categories()
    blank = [str(each).strip().lower() in ("", "nan") for each in name.categories]
    name = name.remove_categories(name.categories[blank])
    missing = np.flatnonzero(name.codes < 0)
    if len(missing):
        first = table.cell_ids(rows[missing[:1]])[0]
        raise UserError(
            f"data.group_key: {len(missing):,} of {len(name):,} cells have no value in obs column {key!r} (the first is {first}); "
            "fill it in, remove these cells, or leave data.group_key out"
        )
    if data.heldout_fraction > 0 and len(name) > 1:
        _check_splittable(key, name)
    return Groups(key, name)


def _check_splittable(key: str, name: pd.Categorical) -> None:
    if len(name.categories) == 1:
        raise UserError(
            f"data.group_key: all cells have the same {key!r} ({name.categories[0]}), so none can be held out whole; leave "
            "data.group_key out, name another obs column, or set data.heldout_fraction to 0"
        )
    if len(name.categories) == len(name):
        raise UserError(
            f"data.group_key: every cell has a value of its own in obs column {key!r}; name the column of donors, samples or batches"
        )


def group_notes(
    groups: Groups | None, heldout: npt.NDArray[np.bool_], data: DataConfig, obs_columns: list[str]
) -> list[str]:
    """What a reader must know of the groups, or of there being none."""
    if groups is None:
        usual = [name for name in obs_columns if name.lower() in _USUAL_NAMES]
        return (
            [f"Cells count as independent. obs has {', '.join(usual)}: data.group_key may name one."] if usual else []
        )
    if not heldout.any():
        return []
    notes, n_heldout = [], groups.numbers(heldout)["n_heldout_groups"]
    if abs(heldout.mean() - data.heldout_fraction) > _MISSED:
        notes.append(
            f"{heldout.mean():.0%} of the cells are held out, not {data.heldout_fraction:.0%}: groups ({groups.key}) stay whole."
        )
    if n_heldout < LEAST_FOR_A_TEST:
        notes.append(
            f"Held-out groups ({groups.key}): {n_heldout}. Tests of cell types need {LEAST_FOR_A_TEST}: raise data.heldout_fraction, "
            "use data with more groups, or name a finer column in data.group_key."
        )
    return notes
