"""More columns about the items, from a .tsv file with item_id: labels (`concepts.labels`), properties to audit (`concepts.confounds`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.proteins.tsv import read_tsv
from sae_genomics.errors import UserError
from sae_genomics.file_keys import expanded

_BLANK = ("", "nan", "NA", "None")


def read_item_table(path: Path, setting: str) -> pd.DataFrame:
    """The columns by item_id: float64 where every value is a number, text or None else. Raises UserError naming file and line."""
    path = expanded(path)
    if not path.is_file():
        raise UserError(f"no such file: {path}; correct {setting}")
    table = read_tsv(path, ("item_id",))
    index = pd.Index(table.columns["item_id"], dtype=object)
    twice = np.flatnonzero(index.duplicated())
    if len(twice):
        raise UserError(f"{path}, line {table.line[twice[0]]}: {index[twice[0]]} has a row already; keep one of them")
    columns = {name: _typed(values) for name, values in table.columns.items() if name != "item_id"}
    if not columns:
        raise UserError(f"{path}: no column beside item_id; {setting} takes a table with more of them")
    return pd.DataFrame(columns, index=index)


def _typed(values: npt.NDArray[np.object_]) -> npt.NDArray[Any]:
    text = pd.Series(values, dtype=object).where(~np.isin(values.astype(str), _BLANK), None)
    numbers = pd.to_numeric(text, errors="coerce")
    if bool((numbers.isna() == text.isna()).all()):
        return numbers.to_numpy(np.float64)
    return text.to_numpy(object)
