"""What prepare leaves for text: the table of documents, and the documents themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from sae_genomics.artifacts import Column
from sae_genomics.data.labelled import items_table

if TYPE_CHECKING:
    from pathlib import Path

    from sae_genomics.run import Run

_i32, _i64, _str = pa.int32(), pa.int64(), pa.string()

ITEMS = items_table(
    "document",
    (
        Column("item", _i64, "document of the input, from 0"),
        Column("item_id", _str, "value of the key data.id_key; without one the line, or the file's name"),
    ),
    "value of the key",
    (
        Column("length", _i32, "tokens that the model reads, special ones included"),
        Column("n_special", _i32, "special tokens among them, such as <bos>"),
        Column("start", _i64, "first byte of the document in documents.txt"),
        Column("stop", _i64, "one past its last byte"),
    ),
)


def documents_file(run: Run) -> Path:
    """The documents used, UTF-8, one after the other: a shard is read from here without reading what stands before it."""
    return run.prepare_dir / "documents.txt"
