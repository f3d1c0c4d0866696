"""A shard's sequences, as the stages after `prepare` read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.data.labelled import items_file
from sae_genomics.data.plan_file import read_plan
from sae_genomics.data.proteins.read import read_some
from sae_genomics.data.proteins.settings import input_files, proteins_section
from sae_genomics.data.proteins.tables import ITEMS
from sae_genomics.errors import UserError
from sae_genomics.items import SequenceItems

if TYPE_CHECKING:
    from sae_genomics.run import Run


def read_proteins(run: Run, indices: npt.NDArray[np.int64]) -> SequenceItems:
    """Sequences of some proteins.

    indices: int64, ascending rows of items.parquet. Raises UserError when the file no longer holds what `prepare` read.
    """
    data = proteins_section(run.config)
    path = input_files(data).sequences
    items = ITEMS.read(items_file(run), ["item", "item_id", "length"]).iloc[indices]
    rows = items["item"].to_numpy(np.int64)
    accession: list[str] = []
    sequences: list[str] = []
    for records in read_some(path, read_plan(run)["alphabet"], rows):
        text, edges = records.residues.tobytes().decode("ascii"), records.ptr.tolist()
        accession += records.accession
        sequences += [text[edges[i] : edges[i + 1]] for i in range(len(records))]
    wanted = list(zip(items["item_id"].tolist(), items["length"].tolist(), strict=True))
    found = [(name, len(sequence)) for name, sequence in zip(accession, sequences, strict=True)]
    if found != wanted:
        at = next((i for i, pair in enumerate(found) if pair != wanted[i]), len(found))
        now = f"{found[at][0]} with {found[at][1]:,} residues" if at < len(found) else "not there"
        raise UserError(
            f"{path} no longer holds what prepare read: its record {rows[at] + 1:,} was {wanted[at][0]} with {wanted[at][1]:,} "
            f"residues and is now {now}; put that file back, or give the run another name with --set run.name=NAME"
        )
    return SequenceItems(rows, sequences, data.window_overlap)
