"""Annotations of whole proteins: labels to associate features with, groups that the split keeps whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.proteins.jsonl import read_jsonl
from sae_genomics.data.proteins.records import is_jsonl
from sae_genomics.data.proteins.settings import InputFiles
from sae_genomics.data.proteins.tsv import read_tsv
from sae_genomics.errors import UserError

_BLANK = ("", "nan")


@dataclass(frozen=True)
class Labels:
    """columns: name -> object [records], text or None. source: where they come from, for a reader. notes: what to know of them."""

    columns: dict[str, npt.NDArray[np.object_]]
    source: str
    notes: tuple[str, ...] = ()

    def column(self, key: str, setting: str) -> npt.NDArray[np.object_]:
        """Raises UserError naming the columns there are."""
        if key in self.columns:
            return self.columns[key]
        there = f"{self.source} has {', '.join(list(self.columns)[:20])}" if self.columns else "there is none"
        hint = "" if self.columns else "; data.labels names a table with a column of accessions and further columns"
        raise UserError(f"{setting}: no column {key!r}; {there}{hint}")


def annotation_of(files: InputFiles, own: Labels, rows: pd.Series, *, may_miss: bool = False) -> Labels:
    """Columns of labels: of the table where one is named, and of JSONL lines (`own`) where the table does not have them.

    The rest as for `read_labels`.
    """
    if files.labels is None:
        return own
    table = read_labels(files.labels, rows, may_miss=may_miss)
    return Labels(own.columns | table.columns, table.source, table.notes)


def labels_of_items(files: InputFiles, rows: npt.NDArray[np.int64], accession: pd.Series) -> Labels:
    """The same of some proteins alone; no sequence is checked again. rows: their records in the file. accession: of each."""
    records = read_jsonl(files.sequences) if is_jsonl(files.sequences) else ()
    own = labels_of_records([label for block in records for label in block.labels], files.sequences.name)
    of_items = Labels({name: column[rows] for name, column in own.columns.items()}, own.source)
    return annotation_of(files, of_items, pd.Series(np.arange(len(rows)), index=accession), may_miss=True)


def read_labels(path: Path, rows: pd.Series, *, may_miss: bool = False) -> Labels:
    """A table of labels. rows: accession -> row of the columns. may_miss: the proteins may be some alone, of which the table has none.

    Raises UserError for an accession that comes twice, and when none is among the sequences.
    """
    table = read_tsv(path, ("accession",))
    accession = pd.Index(table.columns["accession"], dtype=object)
    twice = np.flatnonzero(accession.duplicated())
    if len(twice):
        first = table.line[accession.get_loc(accession[twice[0]])].min()
        raise UserError(
            f"{path}, line {table.line[twice[0]]}: {accession[twice[0]]} has a row already, in line {first}; keep one of them"
        )
    row = rows.reindex(accession).to_numpy(np.float64)
    is_known = ~np.isnan(row)
    if not is_known.any() and not may_miss:
        first_accession = f" (the first is {accession[0]})" if len(accession) else ""
        raise UserError(
            f"{path}: none of its accessions{first_accession} is among the sequences (the first is {rows.index[0]})"
        )
    columns = {}
    for name, texts in table.columns.items():
        if name != "accession":
            column = np.full(len(rows), None, dtype=object)
            column[row[is_known].astype(np.int64)] = texts[is_known]
            columns[name] = _without_blanks(column)
    notes: tuple[str, ...] = ()
    if not is_known.all():
        first_unknown = accession[np.flatnonzero(~is_known)[0]]
        notes = (
            f"Rows of {path.name} for proteins that are not among the sequences: {np.count_nonzero(~is_known):,} "
            f"(the first is {first_unknown}).",
        )
    return Labels(columns, path.name, notes)


def read_columns_of(path: Path) -> Labels:
    """The names of a table's columns, without their values."""
    names = [name for name in read_tsv(path, ("accession",)).columns if name != "accession"]
    return Labels({name: np.zeros(0, dtype=object) for name in names}, path.name)


def labels_of_records(labels: list[dict[str, str]], source: str) -> Labels:
    """What JSONL lines say beside sequence and spans. labels: [records]; empty for FASTA."""
    names = dict.fromkeys(name for record in labels for name in record)
    return Labels(
        {name: _without_blanks(np.array([record.get(name) for record in labels], dtype=object)) for name in names},
        source,
    )


def _without_blanks(column: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    text = pd.Series(column, dtype=object)
    blank = text.isna() | text.astype(str).str.strip().str.lower().isin(_BLANK)
    return text.where(~blank, None).to_numpy(dtype=object)
