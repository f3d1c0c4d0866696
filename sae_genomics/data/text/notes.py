"""What a reader must know of the documents, one sentence per fact: for plan.json and the report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.groups import Groups, split_notes
from sae_genomics.data.text.settings import NOUNS, TextSection
from sae_genomics.data.text.source import Source


def on_keys(
    data: TextSection, source: Source, labels: npt.NDArray[np.object_] | None, groups: Groups | None
) -> list[str]:
    """labels: of the documents used."""
    found = []
    there = f" ({source.path.name} has {', '.join(list(source.keys)[:20])})" if source.keys else ""
    if labels is None and source.keys:
        found.append(f"No label of documents: data.label_key names a key{there}.")
    elif labels is None:
        found.append("No label of documents: a text file has none. A JSONL file can have them.")
    if labels is not None and (missing := int(pd.isna(labels).sum())):
        found.append(
            f"Documents without a value of {data.label_key}: {missing:,} of {len(labels):,}; they have no label."
        )
    if groups is None:
        where = f"names a key{there}" if source.keys else "can name a key of a JSONL file"
        found.append(
            f"Documents count as independent, but those of one source or author are not. data.group_key {where}, and keeps its groups "
            "whole."
        )
    elif data.group_key == data.label_key:
        found.append(
            f"Labels and groups are both {data.group_key}: every label is on one side of the split, so no label can be tested on "
            "held-out documents."
        )
    return found


def on_split(data: TextSection, groups: Groups | None, heldout: npt.NDArray[np.bool_]) -> list[str]:
    return [] if groups is None else split_notes(groups, heldout, data.heldout_fraction, NOUNS)


def on_cuts(
    length: npt.NDArray[np.int64], full_length: npt.NDArray[np.int64], limit: int, model: str, most: int
) -> list[str]:
    """length: tokens read of each document. full_length: tokens that it has. most: what the model can read of one."""
    n_cut = int((full_length > length).sum())
    if not n_cut:
        return []
    why = f"the most that {model} reads at once" if limit == most else "data.max_tokens"
    lost = int((full_length - length).sum())
    return [
        f"Documents cut behind {limit:,} tokens ({why}): {n_cut:,} of {len(length):,} (the longest has {full_length.max():,}). So "
        f"{lost:,} of {full_length.sum():,} tokens ({lost / full_length.sum():.1%}) are not read."
    ]
