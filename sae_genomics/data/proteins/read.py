"""All records of a sequence file, checked; or some of them again, as a shard needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.proteins.jsonl import read_jsonl
from sae_genomics.data.proteins.records import Records, is_jsonl, read_fasta
from sae_genomics.data.proteins.residues import LETTERS, Letters, checked_residues
from sae_genomics.errors import UserError


@dataclass(frozen=True)
class Sequences:
    """What is known of every record of a file, without its residues."""

    accession: list[str]
    name: list[str | None]
    length: npt.NDArray[np.int64]
    digest: npt.NDArray[np.int64]
    """the same for the same residues"""
    labels: list[dict[str, str]]
    """of JSONL; empty for FASTA"""
    letters: Letters
    counts: dict[str, int]
    """letter -> how often it comes in the records `used`"""

    @property
    def rows(self) -> pd.Series:
        """accession -> record."""
        return pd.Series(np.arange(len(self.accession)), index=pd.Index(self.accession, dtype=object))


def read_sequences(
    path: Path,
    alphabet: str = LETTERS,
    used: npt.NDArray[np.int64] | None = None,
    advance: Callable[[float], None] | None = None,
) -> Sequences:
    """Read and check a whole file.

    alphabet: letters that the model knows. used: ascending records whose letters are counted; default: all.
    advance: told how many records were read.

    Raises UserError, with file and line, for whatever is not a protein.
    """
    accession: list[str] = []
    name: list[str | None] = []
    labels: list[dict[str, str]] = []
    line, length, digest = [], [], []
    letters, counts = Letters(), np.zeros(256, dtype=np.int64)
    for records, changed in _checked_blocks(path, alphabet):
        letters += changed
        chosen = np.arange(len(records)) if used is None else used[_between(used, records)] - records.row[0]
        counts += np.bincount(records.take(chosen).residues if used is not None else records.residues, minlength=256)
        accession += records.accession
        name += records.name
        labels += records.labels
        line.append(records.line)
        length.append(records.lengths)
        digest.append(_digests(records))
        if advance is not None:
            advance(len(records))
    _refuse_duplicates(path, accession, np.concatenate(line))
    found = {letter: int(counts[ord(letter)]) for letter in alphabet if counts[ord(letter)]}
    return Sequences(accession, name, np.concatenate(length), np.concatenate(digest), labels, letters, found)


def _digests(records: Records) -> npt.NDArray[np.int64]:
    """A number for each sequence, the same for the same letters within this process."""
    text, edges = records.residues.tobytes(), records.ptr.tolist()
    hashes = [hash(text[start:stop]) for start, stop in pairwise(edges)]
    return np.array(hashes, dtype=np.int64)


def read_some(path: Path, alphabet: str, rows: npt.NDArray[np.int64]) -> Iterator[Records]:
    """Records of a file. rows: ascending. Reading stops behind the last of them."""
    for records in read_jsonl(path) if is_jsonl(path) else read_fasta(path, rows):
        if len(rows) and records.row[0] > rows[-1]:
            return
        wanted = rows[_between(rows, records)]
        if len(wanted):
            yield _checked(path, records.take(wanted - records.row[0]), alphabet)[0]


def _between(rows: npt.NDArray[np.int64], records: Records) -> slice:
    first, last = np.searchsorted(rows, [records.row[0], records.row[-1] + 1])
    return slice(int(first), int(last))


def _checked_blocks(path: Path, alphabet: str) -> Iterator[tuple[Records, Letters]]:
    for records in read_jsonl(path) if is_jsonl(path) else read_fasta(path):
        yield _checked(path, records, alphabet)


def _checked(path: Path, records: Records, alphabet: str) -> tuple[Records, Letters]:
    def where(i: int) -> str:
        accession = records.accession[int(np.searchsorted(records.ptr, i, "right")) - 1]
        return f"{path}, line {records.residue_line(i)} ({accession})"

    residues, ptr, letters = checked_residues(records.residues, records.ptr, alphabet, where)
    empty = np.flatnonzero(np.diff(ptr) == 0)
    if len(empty):
        raise UserError(
            f"{path}, line {records.line[empty[0]]}: {records.accession[empty[0]]} is nothing but a stop codon; remove it"
        )
    return replace(records, residues=residues, ptr=ptr), letters


def _refuse_duplicates(path: Path, accession: list[str], line: npt.NDArray[np.int64]) -> None:
    index = pd.Index(accession, dtype=object)
    again = np.flatnonzero(index.duplicated())
    if len(again):
        name = accession[again[0]]
        first = line[accession.index(name)]
        more = f" ({len(again):,} such records)" if len(again) > 1 else ""
        raise UserError(
            f"{path}, line {line[again[0]]}: {name} is there already, in line {first}{more}; keep one record per accession"
        )
