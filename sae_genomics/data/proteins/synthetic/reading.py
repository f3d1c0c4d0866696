"""Proteins and the groups they belong to, for training the small protein model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.data.proteins.labels import read_labels
from sae_genomics.data.proteins.records import is_jsonl, read_fasta
from sae_genomics.errors import UserError


@dataclass(frozen=True)
class Proteins:
    """One entry per protein, in the file's order."""

    accessions: list[str]
    sequences: list[str]
    groups: list[str]


def read_proteins(fasta: Path, labels: Path | None, group_key: str | None) -> Proteins:
    """Without `labels` and `group_key` each protein is a group of its own. Raises UserError for a file that is not FASTA."""
    if is_jsonl(fasta):
        raise UserError(f"{fasta} holds JSON; give a FASTA file, plain or .gz")
    accessions, sequences = [], []
    for records in read_fasta(fasta):
        accessions += records.accession
        sequences += [records.sequence(i).decode("latin-1").upper() for i in range(len(records))]
    if labels is None or group_key is None:
        return Proteins(accessions, sequences, accessions)
    rows = pd.Series(np.arange(len(accessions)), index=pd.Index(accessions, dtype=object))
    twice = rows.index[rows.index.duplicated()]
    if len(twice):
        raise UserError(f"{fasta}: accession {twice[0]} comes more than once; keep one of its records")
    table = read_labels(labels, rows)
    groups = table.column(group_key, "--group-key")
    missing = [accession for accession, group in zip(accessions, groups, strict=True) if group is None]
    if missing:
        raise UserError(
            f"{labels}: no {group_key} for {missing[0]} ({len(missing)} proteins of {fasta.name} have none)"
        )
    return Proteins(accessions, sequences, groups.tolist())
