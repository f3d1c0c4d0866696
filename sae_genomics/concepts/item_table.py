"""More columns about the items: labels and properties to audit, from the input itself or from a .tsv file with item_id."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.proteins.tsv import read_tsv
from sae_genomics.errors import UserError
from sae_genomics.file_keys import expanded

if TYPE_CHECKING:
    from sae_genomics.concepts.section import ConceptsConfig
    from sae_genomics.run import Run

_BLANK = ("", "nan", "NA", "None")


def asked_columns(settings: ConceptsConfig) -> dict[str, str]:
    """Key of the input -> the config key that asks for it."""
    labels = settings.label_columns if "label" in settings.kinds else ()
    return dict.fromkeys(settings.confound_columns, "concepts.confound_columns") | dict.fromkeys(
        labels, "concepts.label_columns"
    )


def input_columns(run: Run) -> pd.DataFrame:
    """All columns of the input that the stage needs, from one pass over it. Raises UserError for a key that the input lacks."""
    asked = asked_columns(run.config.concepts)
    return run.kind.read_columns(run, asked) if asked else pd.DataFrame()


def more_columns(
    run: Run, item_ids: pd.Series, path: Path | None, columns: pd.DataFrame, settings: tuple[str, str]
) -> pd.DataFrame:
    """Columns of the run's items, in their order: float64 where every value is a number, text or None else.

    item_ids: of the run's items. path: a table, or None. columns: of the input. settings: the config keys of both, for errors.
    Raises UserError for a table that names none of the items.
    """
    parts = [pd.DataFrame(index=range(len(item_ids)))]
    if len(columns.columns):
        parts.append(pd.DataFrame({key: _typed(columns[key].to_numpy(dtype=object)) for key in columns}))
    if path is not None:
        table = read_item_table(path, settings[0])
        if not table.index.isin(item_ids.astype(str)).any():
            raise UserError(
                f"{path}: none of its item_ids (the first is {table.index[0]}) is among the run's {run.kind.nouns.items} "
                f"(the first is {item_ids.iloc[0]}); correct the column"
            )
        twice = [name for name in table.columns if name in columns]
        if twice:
            raise UserError(f"{settings[1]} and {path} both have {twice[0]}; leave it out of one of them")
        parts.append(table.reindex(item_ids.astype(str)).reset_index(drop=True))
    return pd.concat(parts, axis=1)


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
