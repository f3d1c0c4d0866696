"""A shard's counts, as the stages after `prepare` read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from sae_genomics.artifacts import GENES
from sae_genomics.data.cells.counts import CountsForm, NotCounts, to_counts
from sae_genomics.data.cells.genes import gene_index, sum_by_gene
from sae_genomics.data.cells.h5ad import CellTable
from sae_genomics.data.cells.matrix import Rows
from sae_genomics.data.cells.row_copy import open_by_rows
from sae_genomics.data.plan_file import read_plan
from sae_genomics.errors import DamagedArtifact, UserError
from sae_genomics.items import CountItems
from sae_genomics.tokens import pointers

if TYPE_CHECKING:
    from sae_genomics.run import Run


def gene_tokens(run: Run) -> npt.NDArray[np.int32]:
    """Vocabulary ids of the distinct matched genes, ascending: int32 [genes]; the columns of `shard_counts`."""
    token = GENES.read(run.genes_file, columns=["token"])["token"].to_numpy(np.int32)
    return np.unique(token[token >= 0])


def used_rows(run: Run, start: int = 0, stop: int | None = None) -> Rows:
    """Rows of the input at positions start to stop of cells.parquet, ascending: int64 [cells].

    Only the parts of the file that hold them are read. Raises DamagedArtifact when it cannot be read.
    """
    try:
        with pq.ParquetFile(run.cells_file) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            edges = pointers(np.array(sizes, dtype=np.int64))
            stop = int(edges[-1]) if stop is None else stop
            groups = [g for g in range(len(sizes)) if edges[g] < stop and edges[g + 1] > start]
            if not groups:
                return np.empty(0, dtype=np.int64)
            rows = file.read_row_groups(groups, columns=["cell"]).column("cell").to_numpy()
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedArtifact(f"{run.cells_file} cannot be read: {error}", run.cells_file) from None
    first = int(edges[groups[0]])
    return rows[start - first : stop - first].astype(np.int64)


def shard_counts(run: Run, shard: int) -> tuple[csr_matrix, Rows]:
    """Counts of a shard's cells; see `cell_counts`."""
    start, stop = run.shard_items(shard)
    read = _read(run, np.arange(start, stop, dtype=np.int64), used_rows(run, start, stop))
    return read.counts, read.rows


def cell_counts(run: Run, positions: npt.NDArray[np.int64]) -> tuple[csr_matrix, Rows]:
    """Counts of some cells over the distinct matched genes.

    positions: int64, rows of cells.parquet, ascending. Only these cells are read.

    Returns (float32 [cells, genes], columns ascending by token, duplicates summed, no stored zeros;
    int64 [cells], each cell's row in the input). Cells stand in the order of cells.parquet.

    Raises DamagedArtifact when the prepared files cannot be read, UserError when the input cannot.
    """
    read = _read(run, positions, _rows_at(run, positions))
    return read.counts, read.rows


def read_items(run: Run, indices: npt.NDArray[np.int64]) -> CountItems:
    """The counts of some cells, the total of each, and its drug where the model reads one; see `cell_counts`."""
    read = _read(run, indices, _rows_at(run, indices))
    return CountItems(read.rows, read.counts, gene_tokens(run), _drugs(run, read.rows), read.totals)


class _Read(NamedTuple):
    """counts: float32 [cells, genes]. rows: int64 [cells], in the input. totals: float64 [cells], over all genes of the input."""

    counts: csr_matrix
    rows: Rows
    totals: npt.NDArray[np.float64]


def _rows_at(run: Run, positions: npt.NDArray[np.int64]) -> Rows:
    """The input's row of each position; ascending."""
    if not len(positions):
        return positions
    first, last = int(positions[0]), int(positions[-1])
    return used_rows(run, first, last + 1)[positions - first]


def _drugs(run: Run, rows: Rows) -> list[str] | None:
    key = run.config.model.drug_key
    if key is None:
        return None
    with CellTable(run.data_file) as table:
        named = np.asarray(table.column(key, "model.drug_key"), dtype=object)[rows]
    return ["" if drug is None else str(drug) for drug in named]


def _read(run: Run, positions: npt.NDArray[np.int64], rows: Rows) -> _Read:
    """rows: the input's row of each position."""
    plan = read_plan(run)
    genes = GENES.read(run.genes_file, columns=["column", "token"]).sort_values("column")
    tokens, index = gene_index(genes["token"].to_numpy(np.int32))
    where = plan["counts"]["where"]
    form = CountsForm(plan["counts"]["scale"], plan["counts"]["decimals"])
    parts = []
    totals = [np.empty(0)]
    with (
        CellTable(run.data_file) as table,
        open_by_rows(run, table, where, lambda: used_rows(run)) as (matrix, is_copy),
    ):
        for _, block in matrix.blocks(positions if is_copy else rows):
            try:
                counts, _ = to_counts(block, form)
            except NotCounts as error:
                raise UserError(
                    f"{run.data_file} no longer holds what prepare read: {error}; put that file back, "
                    "or give the run another name with --set run.name=NAME"
                ) from None
            totals.append(np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel())
            parts.append(sum_by_gene(counts, index, len(tokens)))
    return _Read(_stacked(parts, len(tokens)), rows, np.concatenate(totals))


def _stacked(parts: list[csr_matrix], n_genes: int) -> csr_matrix:
    if not parts:
        return csr_matrix((0, n_genes), dtype=np.float32)
    if len(parts) == 1:
        return parts[0]
    indptr = pointers(np.concatenate([np.diff(part.indptr) for part in parts]))
    data = np.concatenate([part.data for part in parts])
    indices = np.concatenate([part.indices for part in parts])
    return csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, n_genes))
