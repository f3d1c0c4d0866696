"""Single genes as predictors of cell types: what can be had without a model."""

from __future__ import annotations

import numpy as np

from sae_genomics.artifacts import CELLS
from sae_genomics.associations.cell_sample import CellSample
from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.data.cells.read import shard_counts
from sae_genomics.progress import stop_point
from sae_genomics.run import Run


def add_gene_values(run: Run, store: ColumnStore, sample: CellSample) -> None:
    """Fill the store with the sampled cells' expression: log1p(count / cell's total x median total).

    store: [cells of the sample, units]. Totals are n_counts of cells.parquet, the median is over all its cells
    with any count.
    """
    totals = CELLS.read(run.cells_file, ["n_counts"])["n_counts"].to_numpy(np.float64)
    median = float(np.median(totals[totals > 0])) if (totals > 0).any() else 1.0
    for shard in range(run.n_shards):
        stop_point()
        start, stop = run.shard_items(shard)
        wanted = np.flatnonzero(sample.row[start:stop] >= 0)
        if not len(wanted):
            continue
        counts = shard_counts(run, shard)[0][wanted].tocoo()
        cell = start + wanted[counts.row]
        positive = counts.data > 0
        cell, slot, value = cell[positive], counts.col[positive], counts.data[positive]
        store.add(sample.row[cell], slot, np.log1p(value / totals[cell] * median))
