"""The files of the normal form, `<folder>/<source>/`: terms, their parents, which say little, edges, and what is known of the source."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sae_genomics.atomic import atomic_path, read_json, write_json
from sae_genomics.errors import UserError

TERMS_FILE, PARENTS_FILE, LEFT_OUT_FILE, EDGES_FILE, SOURCE_FILE = (
    "terms.parquet",
    "terms_parents.parquet",
    "terms_left_out.parquet",
    "edges.parquet",
    "source.json",
)
FORM = 2  # raised with every change of these files, so that the script makes them again
_TEXT, _NUMBER, _FLAG, _SIGN = pa.string(), pa.float64(), pa.bool_(), pa.int8()

TERMS = pa.schema([
    ("source", _TEXT), ("term_id", _TEXT), ("term_name", _TEXT), ("gene_symbol", _TEXT), ("ensembl_id", _TEXT), ("hgnc_id", _TEXT),
    ("score", _NUMBER), ("evidence", _TEXT), ("category", _TEXT), ("negative", _FLAG),
])  # fmt: skip
PARENTS = pa.schema([("source", _TEXT), ("term_id", _TEXT), ("parent_id", _TEXT), ("parent_name", _TEXT)])
LEFT_OUT = pa.schema([("source", _TEXT), ("term_id", _TEXT), ("term_name", _TEXT), ("reason", _TEXT)])
EDGES = pa.schema([
    ("source", _TEXT), ("source_gene_symbol", _TEXT), ("source_ensembl_id", _TEXT), ("source_hgnc_id", _TEXT),
    ("target_gene_symbol", _TEXT), ("target_ensembl_id", _TEXT), ("target_hgnc_id", _TEXT),
    ("score", _NUMBER), ("evidence", _TEXT), ("category", _TEXT), ("sign", _SIGN),
])  # fmt: skip
SCHEMAS = {TERMS_FILE: TERMS, PARENTS_FILE: PARENTS, LEFT_OUT_FILE: LEFT_OUT, EDGES_FILE: EDGES}
_BESIDE = b"beside"  # in the metadata of terms.parquet
_GROUP_ROWS = 1 << 20


def write_table(path: Path, table: pa.Table, beside: str = "") -> None:
    """Write a table of the normal form. Raises ValueError where its columns are not those of the file.

    beside: of terms.parquet, what else decides which gene sets come out of it (`content_of`). Runs know a database by the content of this
    one file, so it has to change with the others.
    """
    wanted = SCHEMAS[path.name].with_metadata({_BESIDE: beside.encode()} if beside else None)
    # In parts, because a table may hold numbers in place of texts that millions of rows repeat.
    parts = [table.slice(start, _GROUP_ROWS) for start in range(0, max(len(table), 1), _GROUP_ROWS)]
    with atomic_path(path) as partial, pq.ParquetWriter(partial, wanted, compression="zstd") as writer:
        for part in parts:
            writer.write_table(part.cast(wanted))


def content_of(*values: Any) -> str:
    """A hash of tables and of plain values."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, pa.Table):
            for column in value.columns:
                digest.update(repr(column.to_pylist()).encode())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read one back. Raises UserError where it is not there, or not of the normal form."""
    try:
        table = pq.read_table(path, columns=columns, partitioning=None)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run scripts/download_databases.py --only {path.parent.name}") from None
    except (OSError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"cannot read {path}: {first}; make it again with scripts/download_databases.py --only {path.parent.name}"
        ) from None
    wanted = SCHEMAS[path.name] if columns is None else pa.schema([SCHEMAS[path.name].field(name) for name in columns])
    if table.schema.remove_metadata() != wanted:
        raise UserError(
            f"{path} has other columns than {', '.join(wanted.names)}; make it again with scripts/download_databases.py"
        )
    return table


def write_source(folder: Path, facts: dict[str, Any]) -> None:
    """What is known of a source: name, version, date, licence, citation, files (url, bytes, sha256), counts, notes."""
    write_json(folder / SOURCE_FILE, facts)


def read_source(folder: Path) -> dict[str, Any]:
    """What `write_source` wrote. Raises UserError where it is not there."""
    facts = read_json(folder / SOURCE_FILE)
    if not isinstance(facts, dict):
        raise UserError(f"{folder / SOURCE_FILE} is not there; run scripts/download_databases.py --only {folder.name}")
    return facts
