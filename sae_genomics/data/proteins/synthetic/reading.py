"""Read proteins and the groups they belong to, for training the small protein model."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sae_genomics.errors import UserError


@dataclass(frozen=True)
class Proteins:
    """One entry per protein, in the file's order."""

    accessions: list[str]
    sequences: list[str]
    groups: list[str]


def read_proteins(fasta: Path, labels: Path | None, group_key: str | None) -> Proteins:
    """Without `labels` and `group_key` each protein is a group of its own."""
    accessions, sequences = [], []
    for header, sequence in _records(fasta):
        accessions.append(header.split()[0])
        sequences.append(sequence.upper())
    if not accessions:
        raise UserError(f"{fasta}: no protein in it. Give a FASTA file, plain or .gz")
    if labels is None or group_key is None:
        return Proteins(accessions, sequences, accessions)
    group_of = _column(labels, group_key)
    missing = [accession for accession in accessions if accession not in group_of]
    if missing:
        raise UserError(f"{labels}: no row for {missing[0]} ({len(missing)} proteins of {fasta.name} have none)")
    return Proteins(accessions, sequences, [group_of[accession] for accession in accessions])


def _lines(path: Path) -> Iterator[str]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _records(path: Path) -> Iterator[tuple[str, str]]:
    header = ""
    parts: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        if line.startswith(">"):
            if header:
                yield header, "".join(parts)
            header, parts = line[1:].strip(), []
            if not header:
                raise UserError(f"{path}, line {number}: a header without an accession")
        elif line.strip() and not header:
            raise UserError(f"{path}, line {number}: a sequence before the first header. A FASTA file begins with '>'")
        else:
            parts.append(line.strip())
    if header:
        yield header, "".join(parts)


def _column(path: Path, key: str) -> dict[str, str]:
    rows = csv.DictReader(_lines(path), delimiter="\t")
    names = rows.fieldnames or []
    for name in ("accession", key):
        if name not in names:
            raise UserError(f"{path}: no column {name!r}. Its columns: {', '.join(names)}")
    return {row["accession"]: row[key] for row in rows}
