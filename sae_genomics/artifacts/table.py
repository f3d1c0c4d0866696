"""What a table is: its columns, what its statistics are about, and how it is written and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sae_genomics.atomic import atomic_path
from sae_genomics.errors import DamagedArtifact

FORMAT_VERSION = 1
I32, I64, F32, F64 = pa.int32(), pa.int64(), pa.float32(), pa.float64()
STR, BOOL = pa.string(), pa.bool_()


@dataclass(frozen=True)
class Column:
    """name, Arrow type, and one line of meaning with its unit."""

    name: str
    type: pa.DataType
    meaning: str


@dataclass(frozen=True)
class Inference:
    """What a table's statistics are about, as text that follows `unit of inference:`, `n:` and `null:`."""

    unit: str
    """what counts once"""
    n: str
    """how many there are, or the columns that say so"""
    null: str
    """what the statistics are compared with"""

    def line(self) -> str:
        """One line for a reader."""
        return f"Unit of inference: {self.unit}; n: {self.n}; null: {self.null}."

    def worded(self, change: Callable[[str], str]) -> Inference:
        """The same with each text changed."""
        return Inference(change(self.unit), change(self.n), change(self.null))

    def metadata(self) -> dict[str, str]:
        """The keys that a Parquet file carries."""
        return {"unit_of_inference": self.unit, "n": self.n, "null": self.null}


@dataclass(frozen=True)
class Table:
    """A Parquet file's columns. `file` is its name within its folder. inference: named by every table that holds a statistic."""

    file: str
    meaning: str
    columns: tuple[Column, ...]
    inference: Inference | None = None

    @property
    def schema(self) -> pa.Schema:
        fields = [pa.field(column.name, column.type, metadata={"meaning": column.meaning}) for column in self.columns]
        inference = self.inference.metadata() if self.inference is not None else {}
        return pa.schema(fields, metadata={"meaning": self.meaning, "format_version": str(FORMAT_VERSION), **inference})

    def write(
        self,
        path: Path,
        frame: pd.DataFrame,
        note: str | None = None,
        weights: str | None = None,
        inference: Inference | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Write exactly this table's columns, atomically. Raises KeyError when one is missing.

        Kept in the file's metadata: note, what a reader must know of this file, such as why it has no rows; weights, the content
        hash of the SAE weights that the table describes; inference, what this file's statistics are about, where that is known
        better than the table declares it; facts, what else is known of this file, by name.
        """
        arrays = pa.Table.from_pandas(
            frame[[column.name for column in self.columns]], schema=self.schema, preserve_index=False
        )
        said: dict[bytes, str | None] = {b"note": note, b"weights": weights}
        said |= {key.encode(): text for key, text in (facts or {}).items()}
        if inference is not None:
            said |= {key.encode(): text for key, text in inference.metadata().items()}
        metadata = {**self.schema.metadata, **{key: text.encode() for key, text in said.items() if text}}
        with atomic_path(path) as temporary:
            pq.write_table(arrays.replace_schema_metadata(metadata), temporary, compression="zstd")

    def write_blocks(self, path: Path, blocks: Iterable[pd.DataFrame], weights: str | None = None) -> None:
        """Write a table that does not fit the memory at once: as `write`, one row group per block."""
        said = {b"weights": weights.encode()} if weights else {}
        schema = self.schema.with_metadata({**self.schema.metadata, **said})
        names = [column.name for column in self.columns]
        with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for block in blocks:
                writer.write_table(pa.Table.from_pandas(block[names], schema=schema, preserve_index=False))

    def read(self, path: Path, columns: list[str] | None = None) -> pd.DataFrame:
        """Read the table back. Raises DamagedArtifact naming the file when it is not readable."""
        try:
            return pq.read_table(path, columns=columns).to_pandas()
        except (pa.ArrowInvalid, pa.ArrowIOError) as error:
            raise DamagedArtifact(f"{path} cannot be read: {error}", path) from None

    def note(self, path: Path) -> str | None:
        """The note that `write` was given; None without one."""
        return self._said(path, b"note")

    def weights(self, path: Path) -> str | None:
        """The content hash of the SAE weights that the table describes; None where it names none."""
        return self._said(path, b"weights")

    def fact(self, path: Path, name: str) -> str | None:
        """One of the facts that `write` was given; None where the file lacks it."""
        return self._said(path, name.encode())

    def inference_of(self, path: Path) -> Inference | None:
        """What the file says that its statistics are about; None where it says nothing."""
        unit, n, null = (self._said(path, key) for key in (b"unit_of_inference", b"n", b"null"))
        return Inference(unit, n, null) if unit and n and null else None

    def _said(self, path: Path, key: bytes) -> str | None:
        try:
            text: bytes | None = (pq.read_schema(path).metadata or {}).get(key)
        except (pa.ArrowInvalid, pa.ArrowIOError) as error:
            raise DamagedArtifact(f"{path} cannot be read: {error}", path) from None
        return text.decode() if text else None
