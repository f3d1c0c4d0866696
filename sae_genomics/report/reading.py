"""A table that the report reads of every layer, or of the run: where it is, how much of it is kept, and the names its columns get.

Every kind of data has its own names for the same columns (`cell_type`, `label`). What is read has one set of names, so that
a section, a figure and a panel are written once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from sae_genomics.artifacts import ITEM_NAMES, Table
from sae_genomics.config import RunConfig

BATCH_ROWS = 1 << 19
KINDS = {"gene": "unit"}  # in the table of baselines of labels
Keep = Callable[[Path, RunConfig], pd.DataFrame]


@dataclass(frozen=True)
class Reading:
    """One table of a layer's results, or of the run's."""

    name: str
    """under which `collect.LayerResults`, or `collect.RunResults`, has it"""
    tables: tuple[Table, ...]
    """the files it may be, each of another data kind; the first that is done is read"""
    keep: Keep | None = None
    """reads a part of a large table; None: all of it"""
    below: str = ""
    """folder within the run's results, of a table of the run"""

    def file(self, folder: Path, done: Collection[Path]) -> tuple[Table, Path] | None:
        """The table that is in a layer's folder, and where; None where it is not among the files that are done."""
        files = ((table, folder / table.file) for table in self.tables)
        return next(((table, path) for table, path in files if path in done), None)

    def read(self, table: Table, path: Path, config: RunConfig) -> pd.DataFrame:
        """The rows, with the names of ITEM_NAMES. Raises ValueError when a column is missing, DamagedArtifact for a file not readable."""
        frame = (self.keep(path, config) if self.keep else table.read(path)).rename(columns=ITEM_NAMES)
        wanted = [ITEM_NAMES.get(column.name, column.name) for column in table.columns]
        absent = [name for name in wanted if name not in frame]
        if absent:
            raise ValueError(f"column {absent[0]} is missing")
        if "kind" in frame:
            frame["kind"] = frame["kind"].replace(KINDS)
        return frame


def batches(path: Path, repeated: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The table's rows in frames of at most BATCH_ROWS rows, at least one; `repeated` columns keep one copy of each text."""
    file = pq.ParquetFile(path)
    repeated = [name for name in repeated if name in file.schema_arrow.names]
    file = pq.ParquetFile(path, read_dictionary=list(repeated))
    empty = True
    for batch in file.iter_batches(BATCH_ROWS):
        empty = False
        yield batch.to_pandas().astype(dict.fromkeys(repeated, object))
    if empty:
        yield file.schema_arrow.empty_table().to_pandas().astype(dict.fromkeys(repeated, object))


def smallest(path: Path, by: Sequence[str], n_kept: int, within: Sequence[str] = ()) -> pd.DataFrame:
    """The n_kept rows of each feature with the smallest values of `by`, in that order; read in batches.

    within: columns; of each of their values n_kept rows of a feature are kept.
    """
    kept: pd.DataFrame | None = None
    for frame in batches(path, ()):
        kept = frame if kept is None else pd.concat([kept, frame])
        kept = kept.sort_values(["feature", *by], kind="stable")
        kept = kept[kept.groupby(["feature", *within], sort=False).cumcount() < n_kept]
    assert kept is not None
    return kept.reset_index(drop=True)
