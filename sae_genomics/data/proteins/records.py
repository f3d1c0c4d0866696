"""Protein records of a file, FASTA or JSONL, read in blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sae_genomics.data.lines import blocks, count_lines, first_bytes, opened, skip_mark
from sae_genomics.errors import UserError

_UNIPROT = re.compile(r"(?:sp|tr)\|([^|\s]+)\|")
_UNIPROT_TAIL = re.compile(r"\s(?:OS|OX|GN|PE|SV)=")


@dataclass(frozen=True)
class Records:
    """Some records of a file, one after the other."""

    row: npt.NDArray[np.int64]
    """number of each record in the file, from 0"""
    line: npt.NDArray[np.int64]
    """line of the file in which each begins, from 1"""
    accession: list[str]
    name: list[str | None]
    residues: npt.NDArray[np.uint8]
    """letters of all sequences"""
    ptr: npt.NDArray[np.int64]
    """[records + 1]: where each sequence begins in `residues`"""
    labels: list[dict[str, str]]
    """label column -> value; empty for FASTA"""
    residue_line: Callable[[int], int]
    """line of the file in which a letter of `residues` stands"""

    def __len__(self) -> int:
        return len(self.accession)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.ptr)

    def sequence(self, i: int) -> bytes:
        return self.residues[self.ptr[i] : self.ptr[i + 1]].tobytes()

    def take(self, index: npt.NDArray[np.int64]) -> Records:
        """Some of the records, in the given order."""
        lengths = self.lengths[index]
        ptr = np.concatenate([[0], np.cumsum(lengths)])
        source = np.arange(ptr[-1]) + np.repeat(self.ptr[index] - ptr[:-1], lengths)
        line = self.residue_line
        return replace(
            self,
            row=self.row[index],
            line=self.line[index],
            accession=[self.accession[i] for i in index],
            name=[self.name[i] for i in index],
            residues=self.residues[source],
            ptr=ptr,
            labels=[self.labels[i] for i in index] if self.labels else [],
            residue_line=lambda i: line(int(source[i])),
        )


def is_jsonl(path: Path) -> bool:
    """Whether the file holds JSON objects. Raises UserError when it is neither JSONL nor FASTA, or cannot be read."""
    start = first_bytes(path)
    if start.startswith((b"{", b">")):
        return start.startswith(b"{")
    if not start[:200].isascii() or b"\0" in start[:200]:
        raise UserError(f"{path} is neither FASTA nor JSONL; give a plain or .gz text file")
    first = start.split(b"\n")[0].strip().decode("ascii", "replace")
    with opened(path) as file:
        number = next(i for i, line in enumerate(file, 1) if line.strip())
    raise UserError(
        f"{path}, line {number}: no header stands before {_short(first)!r}; a FASTA record begins with a line such as "
        "'>P12345 name', and a JSONL line with '{'"
    )


def count_records(path: Path) -> int:
    """How many records there are, without looking into them. Raises UserError as `is_jsonl` does."""
    if is_jsonl(path):
        return count_lines(path)
    n, before = 0, b"\n"
    with opened(path) as file:
        skip_mark(file)
        while data := file.read(1 << 20):
            n += (before + data).count(b"\n>")
            before = data[-1:]
    return n


def read_fasta(path: Path, rows: npt.NDArray[np.int64] | None = None) -> Iterator[Records]:
    """Blocks of FASTA records. Raises UserError for an empty record, and for a header without a name.

    rows: ascending; blocks without any of these records are stepped over, and reading stops behind the last. Default: all.
    """
    line, row = 1, 0
    for block in blocks(path, b">"):
        n = block.count(b"\n>") + block.startswith(b">")
        first, last = (0, 1) if rows is None else np.searchsorted(rows, [row, row + n])
        if last > first:
            yield _fasta_block(path, block, line, row)
        elif rows is not None and first == len(rows):
            return
        line += block.count(b"\n")
        row += n


def _fasta_block(path: Path, block: bytes, line: int, row: int) -> Records:
    """line: number of the block's first line. row: number of its first record."""
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_header = data[starts] == ord(">")
    is_text = ~np.isin(np.arange(256), list(b"\n\r \t\v\f"))
    in_header = np.repeat(is_header, np.diff(np.append(starts, len(data))))
    kept = np.flatnonzero(is_text[data] & ~in_header)
    header = np.flatnonzero(is_header)
    header_line = line + header
    texts = [
        block[start + 1 : end].decode("utf-8", "replace").strip()
        for start, end in zip(starts[header].tolist(), ends[header].tolist(), strict=True)
    ]
    ptr = np.append(np.searchsorted(kept, starts[header]), len(kept)).astype(np.int64)
    empty = np.flatnonzero(np.diff(ptr) == 0)
    if len(empty):
        raise UserError(
            f"{path}, line {header_line[empty[0]]}: the record {_short(texts[empty[0]])!r} has no sequence; remove it"
        )
    pairs = [split_header(text) for text in texts]
    for i, (accession, _) in enumerate(pairs):
        if not accession:
            raise UserError(f"{path}, line {header_line[i]}: a header without a name; write an accession after '>'")
    return Records(
        np.arange(row, row + len(texts), dtype=np.int64),
        header_line.astype(np.int64),
        [accession for accession, _ in pairs],
        [name for _, name in pairs],
        data[kept],
        ptr,
        [],
        lambda i: int(line + np.searchsorted(starts, kept[i], "right") - 1),
    )


def split_header(text: str) -> tuple[str, str | None]:
    """(accession, name) of a FASTA header without its `>`.

    `sp|P12345|NAME_HUMAN Protein name OS=...` gives P12345 and `Protein name`; of any other header the first word is the accession.
    """
    parts = text.split(None, 1)
    if not parts:
        return "", None
    uniprot = _UNIPROT.match(parts[0])
    return (uniprot.group(1) if uniprot else parts[0]), plain_name(parts[1] if len(parts) > 1 else "")


def plain_name(text: str) -> str | None:
    """A protein's name without UniProt's `OS=... GN=...` behind it; None where nothing is left."""
    return _UNIPROT_TAIL.split(f" {text}", maxsplit=1)[0].strip() or None


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
