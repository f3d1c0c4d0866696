"""A run's items, whatever its data kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.items import CountItems, Items

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from sae_genomics.run import Run


def kind_and_nouns(run: Run) -> tuple[str, dict[str, str]]:
    """Name of the run's data kind, and what it calls an item, a unit and a label."""
    return "cells", {"item": "cell", "unit": "gene", "label": "cell type"}


def shard_items(run: Run, shard: int) -> Items:
    """A shard's items."""
    from sae_genomics.data.read import shard_counts

    return _cells(run, *shard_counts(run, shard))


def read_items(run: Run, indices: npt.NDArray[np.int64]) -> Items:
    """Some items. indices: ascending rows of cells.parquet."""
    from sae_genomics.data.read import cell_counts

    return _cells(run, *cell_counts(run, indices))


def _cells(run: Run, counts: csr_matrix, rows: npt.NDArray[np.int64]) -> CountItems:
    from sae_genomics.data.read import gene_tokens

    return CountItems(rows, counts, gene_tokens(run), _drugs(run, rows))


def _drugs(run: Run, rows: npt.NDArray[np.int64]) -> list[str] | None:
    key = run.config.model.drug_key
    if key is None:
        return None
    from sae_genomics.data.h5ad import CellTable

    with CellTable(run.data_file) as table:
        named = np.asarray(table.column(key, "model.drug_key"), dtype=object)[rows]
    return ["" if drug is None else str(drug) for drug in named]
