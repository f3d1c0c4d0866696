"""A table that a command writes where its reader says (--out): .tsv or .parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.atomic import atomic_path
from sae_genomics.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".tsv", ".parquet")


def check_out(path: Path) -> None:
    """Raise UserError for a name or a folder that no table can be written to."""
    if path.suffix not in ENDINGS:
        raise UserError(f"--out {path}: the name must end in {' or '.join(ENDINGS)}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out {path}: no such folder: {path.absolute().parent}")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write the table atomically, in the format that the file's ending names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary, compression="zstd")
        else:
            table.to_csv(temporary, sep="\t", index=False, lineterminator="\n")
