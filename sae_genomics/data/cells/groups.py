"""Donors, samples or batches of cells (`data.group_key`), from a column of obs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.data.cells.h5ad import CellTable
from sae_genomics.data.cells.settings import NOUNS, CellsSection
from sae_genomics.data.groups import Groups, GroupWording, make_groups, split_notes
from sae_genomics.errors import UserError

_WORDING = GroupWording(NOUNS, "obs column", "donors, samples or batches")
_USUAL_NAMES = (
    "donor", "donor_id", "patient", "patient_id", "individual", "subject", "subject_id", "sample", "sample_id", "batch", "orig.ident",
)  # fmt: skip


def read_groups(
    data: CellsSection, table: CellTable, rows: npt.NDArray[np.int64], cell_type_key: str | None
) -> Groups | None:
    """The groups of the cells `rows`; None without `data.group_key`.

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
    return make_groups(
        key, column[rows], lambda cell: table.cell_ids(rows[cell : cell + 1])[0], data.heldout_fraction, _WORDING
    )


def group_notes(
    groups: Groups | None, heldout: npt.NDArray[np.bool_], data: CellsSection, obs_columns: list[str]
) -> list[str]:
    """What a reader must know of the groups, or of there being none."""
    if groups is None:
        usual = [name for name in obs_columns if name.lower() in _USUAL_NAMES]
        return (
            [f"Cells count as independent. obs has {', '.join(usual)}: data.group_key may name one."] if usual else []
        )
    return split_notes(groups, heldout, data.heldout_fraction, NOUNS)
