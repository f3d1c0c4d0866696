"""Single units (genes, amino acids) as predictors of labels: what can be had without a model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.artifacts import CELLS
from sae_genomics.associations.cell_sample import CellSample
from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.triples import TokenBlock
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
        cell, unit, value = cell[positive], counts.col[positive], counts.data[positive]
        store.add(sample.row[cell], unit, np.log1p(value / totals[cell] * median))


def add_unit_shares(store: ColumnStore, block: TokenBlock, sample_row: npt.NDArray[np.int64]) -> None:
    """Fill the store with the share of each unit among the tokens of a sampled item.

    store: [items of the sample, units]. sample_row: int64 [items of the block], -1 for items outside the sample.
    """
    row = np.repeat(sample_row, np.diff(block.item_ptr))
    counted = (block.unit >= 0) & (row >= 0)
    pair, n = np.unique(row[counted] * store.n_columns + block.unit[counted], return_counts=True)
    item = pair // store.n_columns
    total = np.bincount(row[counted], minlength=store.n_rows)
    store.add(item, pair % store.n_columns, n / total[item])
