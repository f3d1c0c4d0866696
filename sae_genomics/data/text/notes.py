"""What a reader must know of the documents, one sentence per fact: for plan.json and the report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.data.text.source import Source


def without_keys(source: Source) -> tuple[str, str]:
    """What is said where there is no data.label_key, and where there is no data.group_key."""
    there = f" ({source.path.name} has {', '.join(list(source.keys)[:20])})" if source.keys else ""
    where = f"names a key{there}" if source.keys else "can name a key of a JSONL file"
    return (
        f"No label of documents: data.label_key names a key{there}."
        if source.keys
        else "No label of documents: a text file has none. A JSONL file can have them.",
        f"Documents count as independent, but those of one source or author are not. data.group_key {where}, and keeps its groups whole.",
    )


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
