"""What a reader must know of the proteins, one sentence per fact: for plan.json and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.labelled import LabelledItems
from sae_genomics.data.proteins.labels import Labels
from sae_genomics.data.proteins.residues import Letters
from sae_genomics.data.proteins.settings import BUILTIN
from sae_genomics.data.proteins.spans import SpanTable, n_overlapping

if TYPE_CHECKING:
    from sae_genomics.run import Run

_SYNTHETIC = (
    "The proteins are synthetic: random residues with planted domains that follow PROSITE patterns. They show how the pipeline works, "
    "and say nothing about real proteins."
)


def on_annotation(run: Run, annotation: Labels, items: LabelledItems) -> list[str]:
    """Of the proteins used, their labels and groups. annotation: all columns that there are."""
    found = [_SYNTHETIC] if run.config.data.path in BUILTIN else []
    columns = list(annotation.columns)[:20]
    where = f"a column of {annotation.source}" if columns else "a column of the table data.labels"
    no_label = f"No label of proteins: data.label_key names a column ({annotation.source} has {', '.join(columns)})."
    no_group = f"Proteins count as independent, but members of one family are not. data.group_key names {where}, and keeps its groups whole."
    return [*annotation.notes, *found, *items.notes(run, no_label if columns else "", no_group)]


def on_letters(letters: Letters, model: str) -> list[str]:
    """Of the whole file."""
    found = []
    if letters.unknown:
        found.append(
            f"Letters that are no residue of {model}: {letters.unknown:,} ({', '.join(letters.unknown_kinds)}); they are read as X."
        )
    if letters.stops:
        found.append(f"Stop codons (*) at the end of a sequence: {letters.stops:,}; they are left out.")
    if letters.lower:
        found.append(f"Lower-case letters: {letters.lower:,}; they are read as upper case.")
    return found


def on_windows(lengths: npt.NDArray[np.int64], most: int, n_windows: int, overlap: int, model: str) -> list[str]:
    """n_windows: of all proteins."""
    n_long = int((lengths > most).sum())
    if not n_long:
        return []
    theirs = n_windows - (len(lengths) - n_long)
    return [
        f"Proteins longer than the {most:,} residues that {model} reads at once: {n_long:,} (the longest has {lengths.max():,}). They are "
        f"read in {theirs:,} windows that share {overlap:,} residues; each residue is stored once."
    ]


def on_spans(read: SpanTable, spans: pd.DataFrame, table: pd.DataFrame, heldout: npt.NDArray[np.bool_]) -> list[str]:
    """read: of the whole file. spans: of the proteins used, with the column item_index. table: their concepts."""
    found = []
    if read.unknown:
        found.append(
            f"Spans of proteins that are not among the sequences: {read.unknown:,} (the first is of {read.unknown_first}); they are left out."
        )
    if read.repeated:
        found.append(f"Spans given more than once: {read.repeated:,}; each counts once.")
    if read.cut:
        found.append(
            f"Spans that reach over the border of the window that the sequence is: {read.cut:,}; they are cut there."
        )
    if not len(spans):
        return [*found, "No protein that is used has a span."]
    most, least = table.iloc[0], table.iloc[-1]
    found.append(
        f"Spans per concept: {least['n_spans']:,} ({least['concept']}) to {most['n_spans']:,} ({most['concept']}), median "
        f"{table['n_spans'].median():,g}; {spans['item_index'].nunique():,} of {len(heldout):,} proteins have a span."
    )
    if overlapping := n_overlapping(spans):
        found.append(f"Spans that overlap an earlier span of the same protein: {overlapping:,}.")
    n_held = table["n_heldout_proteins"]
    one_side = int(((n_held == 0) | (n_held == table["n_proteins"])).sum())
    if heldout.any() and one_side:
        found.append(
            f"Concepts whose proteins are all on one side of the split: {one_side:,} of {len(table):,}; what is found for them cannot be "
            "checked on held-out proteins."
        )
    return found
