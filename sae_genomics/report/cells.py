"""A sample of the cells, where they lie on the embedding, and how strongly each feature fires in them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from sae_genomics.run import Run

_BLOCK_ROWS = 1 << 17
_EMBEDDINGS = ("X_umap", "X_tsne", "X_draw_graph_fa", "X_draw_graph_fr")


@dataclass
class CellSample:
    """Cells the report draws, in the order of cells.parquet.

    rows: int64 [n], their rows in cells.parquet and features.h5ad, ascending.
    cell_id: their names. cell_type: int32 [n], position in `types`, -1 without. heldout: bool [n].
    n_all: cells of the run.
    xy: float32 [n, 2], the embedding `basis`; None where the data has none.
    """

    rows: npt.NDArray[np.int64]
    cell_id: list[str]
    cell_type: npt.NDArray[np.int32]
    heldout: npt.NDArray[np.bool_]
    types: list[str]
    n_all: int
    xy: npt.NDArray[np.float32] | None = None
    basis: str = ""


def sample_cells(run: Run) -> CellSample:
    """At most report.dashboard_cells cells, drawn evenly from all; the same ones for the same seed."""
    file = pq.ParquetFile(run.cells_file)
    n_all, wanted = file.metadata.num_rows, run.config.report.dashboard_cells
    rows = np.arange(n_all)
    if n_all > wanted:
        seed = np.random.SeedSequence([run.config.run.seed, zlib.crc32(b"report.cells")])
        rows = np.sort(np.random.default_rng(seed).choice(n_all, wanted, replace=False))
    ids: list[str] = []
    names: list[str | None] = []
    heldout = []
    start = 0
    for batch in file.iter_batches(_BLOCK_ROWS, columns=["cell_id", "cell_type", "heldout"]):
        stop = start + batch.num_rows
        here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
        chosen = batch.take(here)
        ids += chosen.column("cell_id").to_pylist()
        names += chosen.column("cell_type").to_pylist()
        heldout.append(chosen.column("heldout").to_numpy(zero_copy_only=False))
        start = stop
    types = sorted({name for name in names if name is not None})
    code_of = {name: code for code, name in enumerate(types)}
    codes = np.array([code_of.get(name, -1) if name is not None else -1 for name in names], dtype=np.int32)
    held = np.concatenate(heldout).astype(bool) if heldout else np.zeros(0, bool)
    return CellSample(rows, [str(each) for each in ids], codes, held, types, n_all)


def read_embedding(path: Path, sample: CellSample) -> bool:
    """Put the first embedding that features.h5ad holds for people's eyes into `sample`. Returns whether there is one."""
    with h5py.File(path, "r") as file:
        obsm = file.get("obsm", {})
        known = [name for name in _EMBEDDINGS if name in obsm]
        known += [name for name in obsm if "umap" in name.lower() or "tsne" in name.lower()]
        for name in known:
            stored = obsm[name]
            if not isinstance(stored, h5py.Dataset) or stored.ndim != 2 or stored.shape[1] < 2:
                continue
            xy = np.concatenate([stored[part][:, :2] for part in _runs(sample.rows, at_most=_BLOCK_ROWS)])
            if np.isfinite(xy).all():
                sample.xy, sample.basis = xy.astype(np.float32), name.removeprefix("X_")
                return True
    return False


def read_activations(path: Path, sample: CellSample) -> csr_matrix:
    """Largest activation of every feature in each cell, float32 [sampled cells, d_sae], from features.h5ad's X.

    Only the sampled rows are read. Raises ValueError when X is not stored by rows (CSR).
    """
    with h5py.File(path, "r") as file:
        stored = file["X"]
        if not isinstance(stored, h5py.Group) or stored.attrs.get("encoding-type") != "csr_matrix":
            raise ValueError("X is not a CSR matrix")
        n_rows, n_columns = (int(each) for each in stored.attrs["shape"])
        if n_rows != sample.n_all:
            raise ValueError(f"it has {n_rows:,} cells where the run has {sample.n_all:,}")
        lengths, values, columns = [], [], []
        for part in _runs(sample.rows, at_most=4096):
            pointers = stored["indptr"][part.start : part.stop + 1].astype(np.int64)
            lengths.append(np.diff(pointers))
            values.append(stored["data"][pointers[0] : pointers[-1]].astype(np.float32, copy=False))
            columns.append(stored["indices"][pointers[0] : pointers[-1]])
    if not lengths:
        return csr_matrix((0, n_columns), dtype=np.float32)
    pointers = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    found = csr_matrix((np.concatenate(values), np.concatenate(columns), pointers), shape=(len(sample.rows), n_columns))
    found.eliminate_zeros()
    return found


def _runs(rows: npt.NDArray[np.int64], at_most: int) -> Iterator[slice]:
    """Stretches of consecutive rows, cut at `at_most`: one read each."""
    if not len(rows):
        return
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for stretch in np.split(rows, breaks):
        for start in range(0, len(stretch), at_most):
            part = stretch[start : start + at_most]
            yield slice(int(part[0]), int(part[-1]) + 1)


@dataclass
class TopCells:
    """Of each feature the sampled cells in which it is strongest, as ragged arrays.

    feature_ptr: int64 [d_sae + 1]. cell: int32, position in the sample. activation: float32, descending in a feature.
    n_firing: int64 [d_sae], sampled cells with activation > 0.
    """

    feature_ptr: npt.NDArray[np.int64]
    cell: npt.NDArray[np.int32]
    activation: npt.NDArray[np.float32]
    n_firing: npt.NDArray[np.int64]


def top_cells(activations: csr_matrix, n_kept: int | npt.NDArray[np.int64]) -> TopCells:
    """The n_kept (one number, or one per feature) strongest cells of every feature; ties in the sample's order."""
    by_feature = activations.tocsc()
    n_firing = np.diff(by_feature.indptr).astype(np.int64)
    # Positive floats order as their bits do, so feature and activation make one key, sorted in one pass.
    feature = np.repeat(np.arange(by_feature.shape[1]), n_firing)
    order = np.argsort((feature << 32) - by_feature.data.astype(np.float32).view(np.uint32), kind="stable")
    rank = np.arange(len(order)) - np.repeat(by_feature.indptr[:-1], n_firing)
    limit = np.broadcast_to(np.asarray(n_kept, dtype=np.int64), n_firing.shape)
    order = order[rank < np.repeat(limit, n_firing)]
    pointers = np.concatenate([[0], np.cumsum(np.minimum(n_firing, limit))])
    return TopCells(pointers, by_feature.indices[order].astype(np.int32), by_feature.data[order], n_firing)
