"""Annotated stretches of proteins: read from a table or JSONL, checked against the sequences, described."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.lines import first_bytes
from sae_genomics.data.proteins import jsonl
from sae_genomics.data.proteins.tsv import read_tsv
from sae_genomics.errors import UserError

COLUMNS = ("accession", "start", "end", "concept", "name")
_NEEDED = COLUMNS[:4]


@dataclass(frozen=True)
class SpanTable:
    """frame: row (record of the sequence file), start and stop (0-based, half-open), concept, name; sorted, each span once.

    unknown: spans of accessions that the sequence file does not have. repeated: spans that were given again. cut: spans that
    reached over the border of the window that the sequence is.
    """

    frame: pd.DataFrame
    unknown: int = 0
    unknown_first: str = ""
    repeated: int = 0
    cut: int = 0


def read_spans(path: Path, rows: pd.Series, lengths: npt.NDArray[np.int64], own_file: bool = False) -> SpanTable | None:
    """The spans in a file.

    rows: accession -> record of the sequence file. lengths: residues of each record.
    own_file: the file holds the sequences too, and may say nothing of spans; then None is returned.

    Raises UserError for a span outside its sequence, for one that ends before it begins, and when no accession is known.
    """
    if first_bytes(path).startswith(b"{"):
        found = _from_jsonl(path, rows, lengths, own_file)
    else:
        found = _from_tsv(path, rows)
    if found is None:
        return None
    spans, cut = found
    return _checked(path, spans, rows, lengths, cut)


def _from_tsv(path: Path, rows: pd.Series) -> tuple[pd.DataFrame, int]:
    table = read_tsv(path, _NEEDED)
    columns = table.columns
    frame = pd.DataFrame(
        {
            "line": table.line,
            "accession": columns["accession"],
            "start": _whole_numbers(path, table.line, "start", columns["start"]),
            "end": _whole_numbers(path, table.line, "end", columns["end"]),
            "concept": columns["concept"],
            "name": columns.get("name", columns["concept"]),
        }
    )
    empty = np.flatnonzero(frame["concept"] == "")
    if len(empty):
        raise UserError(f"{path}, line {frame['line'].iloc[empty[0]]}: no concept; name what the span is")
    frame["name"] = frame["name"].where(frame["name"] != "", frame["concept"])
    return frame, 0


def _whole_numbers(
    path: Path, line: npt.NDArray[np.int64], column: str, texts: npt.NDArray[np.object_]
) -> npt.NDArray[np.int64]:
    try:
        return texts.astype(np.int64)
    except (ValueError, OverflowError):
        wrong = next(i for i, text in enumerate(texts) if not (text.isdecimal() and len(text) < 19))
    raise UserError(f"{path}, line {line[wrong]}: {column} = {texts[wrong][:30]!r} is not a whole number")


def _from_jsonl(
    path: Path, rows: pd.Series, lengths: npt.NDArray[np.int64], own_file: bool
) -> tuple[pd.DataFrame, int] | None:
    known = dict(zip(rows.index, rows.to_numpy(), strict=True))
    read: list[tuple[Any, ...]] = []
    said, cut = False, 0
    for number, entry in jsonl.entries(path):
        said = said or jsonl.has_spans(entry)
        accession = jsonl.accession_of(path, number, entry)
        length = int(lengths[known[accession]]) if accession in known else -1
        try:
            spans = jsonl.entry_spans(entry, length)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        read += [(number, accession, *span[:4]) for span in spans]
        cut += sum(span[4] for span in spans)
    if not said:
        if own_file:
            return None
        raise UserError(
            f"{path}: no line has {jsonl.ONE_SPAN} or {jsonl.MANY_SPANS}; docs/proteins.md shows both layouts"
        )
    frame = pd.DataFrame(read, columns=["line", "accession", "start", "end", "concept", "name"])
    return frame.astype({"line": np.int64, "start": np.int64, "end": np.int64}), cut


def _checked(path: Path, spans: pd.DataFrame, rows: pd.Series, lengths: npt.NDArray[np.int64], cut: int) -> SpanTable:
    backwards = np.flatnonzero(spans["start"] > spans["end"])
    if len(backwards):
        wrong = spans.iloc[backwards[0]]
        raise UserError(
            f"{path}, line {wrong['line']}: the span of {wrong['accession']} starts at {wrong['start']} and ends at {wrong['end']}; "
            "start is the first residue and end the last, both counted from 1"
        )
    row = rows.reindex(spans["accession"]).to_numpy(np.float64)
    is_known = ~np.isnan(row)
    if len(spans) and not is_known.any():
        raise UserError(
            f"{path}: none of its accessions (the first is {spans['accession'].iloc[0]}) is among the sequences "
            f"(the first is {rows.index[0]}); are both files of the same proteins?"
        )
    known = spans[is_known].assign(row=row[is_known].astype(np.int64))
    length = lengths[known["row"].to_numpy()]
    outside = np.flatnonzero((known["start"] < 1) | (known["end"] > length))
    if len(outside):
        wrong = known.iloc[outside[0]]
        raise UserError(
            f"{path}, line {wrong['line']}: the span {wrong['start']} to {wrong['end']} lies outside {wrong['accession']}, "
            f"which has the residues 1 to {length[outside[0]]:,}"
        )
    frame = pd.DataFrame(
        {
            "row": known["row"],
            "start": (known["start"] - 1).astype(np.int32),
            "stop": known["end"].astype(np.int32),
            "concept": known["concept"],
            "name": known["name"],
        }
    )
    frame = frame.sort_values(["row", "start", "stop", "concept"], kind="stable")
    once = frame.drop_duplicates(["row", "start", "stop", "concept"]).reset_index(drop=True)
    unknown = spans["accession"][~is_known]
    return SpanTable(
        once, len(unknown), str(unknown.iloc[0]) if len(unknown) else "", len(frame) - len(once), cut
    )  # fmt: skip


def n_overlapping(frame: pd.DataFrame) -> int:
    """Spans that begin before an earlier span of the same protein has ended. frame: sorted, as in `SpanTable`."""
    if len(frame) < 2:
        return 0
    start, stop = frame["start"].to_numpy(np.int64), frame["stop"].to_numpy(np.int64)
    apart = frame["row"].to_numpy(np.int64) * (int(stop.max()) + 1)  # proteins stand one after the other
    ended = np.maximum.accumulate(stop + apart)
    return int(np.count_nonzero((start + apart)[1:] < ended[:-1]))


def concepts(frame: pd.DataFrame, heldout: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """One row per concept, the most frequent first: concept, name, n_spans, n_proteins, n_heldout_proteins.

    frame: with the column item_index. heldout: bool [proteins used].
    """
    pairs = frame[["concept", "item_index"]].drop_duplicates()
    held = pairs[heldout[pairs["item_index"].to_numpy(np.int64)]]
    table = frame.groupby("concept", sort=True).agg(name=("name", "first"), n_spans=("name", "size")).reset_index()
    table["n_proteins"] = table["concept"].map(pairs["concept"].value_counts()).astype(int)
    table["n_heldout_proteins"] = table["concept"].map(held["concept"].value_counts()).fillna(0).astype(int)
    return table.sort_values(["n_spans", "concept"], ascending=[False, True], kind="stable").reset_index(drop=True)
