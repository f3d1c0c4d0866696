"""Columns of the tables that prepare leaves for proteins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from sae_genomics.artifacts import Column, Table
from sae_genomics.data.labelled import items_table

if TYPE_CHECKING:
    from pathlib import Path

    from sae_genomics.run import Run

_i32, _i64, _str = pa.int32(), pa.int64(), pa.string()

ITEMS = items_table(
    "protein",
    (
        Column("item", _i64, "record of the sequence file, from 0"),
        Column("item_id", _str, "accession"),
        Column("name", _str, "the protein's name; null where the file has none"),
    ),
    "value in the column",
    (
        Column("length", _i32, "residues"),
        Column(
            "n_windows", _i32, "windows in which the model reads it: 1 unless it is longer than the model reads at once"
        ),
    ),
)

SPANS = Table(
    "spans.parquet",
    "One row per annotated stretch of a protein used, by protein and start.",
    (
        Column("item_index", _i64, "row of items.parquet"),
        Column("start", _i32, "first residue, from 0"),
        Column("stop", _i32, "one past the last residue, from 0"),
        Column("concept", _str, "what it is: a domain's accession, a motif"),
        Column("name", _str, "the concept's name for people"),
    ),
)


def spans_file(run: Run) -> Path:
    return run.prepare_dir / SPANS.file
