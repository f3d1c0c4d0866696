"""What a run has left so far: every artifact that is done, read in the little pieces a report needs.

Nothing here raises because something is missing or damaged; what cannot be read is put on the list of problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sae_genomics.artifacts import (
    ANNOTATION_NULLS,
    CELL_TYPE_BASELINES,
    FEATURE_CELL_TYPES,
    FEATURE_GENES,
    FEATURE_TERMS,
    FEATURES,
    GENES,
    Inference,
    Table,
)
from sae_genomics.atomic import read_json
from sae_genomics.errors import Interrupted
from sae_genomics.progress import say
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

TERMS_KEPT = 12
_BATCH_ROWS = 1 << 19
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A finished file, or a piece of the report itself, that could not be used, and what was wrong with it."""

    what: Path | str
    message: str


@dataclass
class Problems:
    """Problems met so far; `attempt` adds to them instead of raising."""

    found: list[Problem] = field(default_factory=list)

    def attempt(self, what: Path | str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """call(*args), or None with a problem noted: a report on a broken run is when a report is needed most."""
        try:
            return call(*args, **kwargs)
        except Interrupted:
            raise
        except Exception as error:
            self.found.append(Problem(what, f"{type(error).__name__}: {error}"))
            say(f"report: {what}: {type(error).__name__}: {error}")
            return None


@dataclass
class Prepared:
    """Artifacts of `prepare`; None or empty where they are not done.

    cells: per cell type (index) the numbers `train` and `heldout`; None without annotation.
    """

    plan: dict[str, Any] | None = None
    genes: pd.DataFrame | None = None
    cells: pd.DataFrame | None = None


@dataclass
class LayerResults:
    """One layer's artifacts; None where they are not done. Columns as in `sae_genomics.artifacts`.

    genes: rows whose rank_score or rank_specificity is at most the number asked for, by feature and rank.
    terms: the TERMS_KEPT terms of each feature with the smallest p, by feature and p.
    nothing_tested: why no gene set could be tested; None where some were.
    features_file: features.h5ad, when done.
    inference: file name of a table -> what its statistics are about, of the tables above that say so.
    """

    layer: int
    metrics: dict[str, Any] | None = None
    features: pd.DataFrame | None = None
    genes: pd.DataFrame | None = None
    cell_types: pd.DataFrame | None = None
    baselines: pd.DataFrame | None = None
    terms: pd.DataFrame | None = None
    nulls: pd.DataFrame | None = None
    nothing_tested: str | None = None
    features_file: Path | None = None
    inference: dict[str, Inference] = field(default_factory=dict)


def read_prepared(run: Run, problems: Problems) -> Prepared:
    """Read what `prepare` left."""
    if not run.state(stage_named("prepare"), 0).done:
        return Prepared()
    return Prepared(
        plan=problems.attempt(run.plan_file, _mapping, run.plan_file),
        genes=problems.attempt(run.genes_file, GENES.read, run.genes_file),
        cells=problems.attempt(run.cells_file, count_cell_types, run.cells_file),
    )


def read_layer(run: Run, task: int, problems: Problems, n_genes: int) -> LayerResults:
    """Read what is done of the layer at position `task` of run.layers; n_genes: genes kept a feature and ranking."""
    layer = run.layers[task]
    found = LayerResults(layer)
    if run.state(stage_named("train"), task).done:
        path = run.sae_dir(layer) / "metrics.json"
        found.metrics = problems.attempt(path, _mapping, path)
    folder = run.layer_results(layer)

    def read(table: Table, reader: Callable[[Path], pd.DataFrame]) -> pd.DataFrame | None:
        path = folder / table.file
        frame = problems.attempt(path, lambda: _complete(table, reader(path)))
        named = problems.attempt(path, table.inference_of, path) if frame is not None else None
        if named is not None:
            found.inference[table.file] = named
        return frame

    if run.state(stage_named("associate"), task).done:
        found.features = read(FEATURES, FEATURES.read)
        found.genes = read(FEATURE_GENES, lambda path: _top_genes(path, n_genes))
        found.cell_types = read(FEATURE_CELL_TYPES, FEATURE_CELL_TYPES.read)
        found.baselines = read(CELL_TYPE_BASELINES, CELL_TYPE_BASELINES.read)
        found.features_file = folder / "features.h5ad"
    if run.state(stage_named("validate"), task).done:
        found.terms = read(FEATURE_TERMS, lambda path: _smallest(path, ("p_value",), TERMS_KEPT))
        found.nulls = read(ANNOTATION_NULLS, ANNOTATION_NULLS.read)
        if found.nulls is not None and found.nulls.empty:
            found.nothing_tested = ANNOTATION_NULLS.note(folder / ANNOTATION_NULLS.file)
    return found


def count_cell_types(path: Path) -> pd.DataFrame | None:
    """Numbers of train and held-out cells a type from cells.parquet, most frequent first; None without annotation."""
    file = pq.ParquetFile(path, read_dictionary=["cell_type"])
    counts = pd.Series(dtype=np.int64)
    for batch in file.iter_batches(_BATCH_ROWS, columns=["heldout", "cell_type"]):
        here = batch.to_pandas().astype({"cell_type": object}).groupby(["cell_type", "heldout"]).size()
        counts = counts.add(here, fill_value=0) if len(counts) else here
    if not len(counts):
        return None
    table = counts.astype(np.int64).unstack(fill_value=0).reindex(columns=[False, True], fill_value=0)
    table.columns = pd.Index(["train", "heldout"])
    return table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]


def _mapping(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _complete(table: Table, frame: pd.DataFrame) -> pd.DataFrame:
    absent = [column.name for column in table.columns if column.name not in frame]
    if absent:
        raise ValueError(f"column {absent[0]} is missing")
    return frame


def _top_genes(path: Path, n_genes: int) -> pd.DataFrame:
    """Rows ranked n_genes or better by either ranking; read in batches, because the whole table can be gigabytes."""
    parts = [
        frame[(frame["rank_score"] <= n_genes) | (frame["rank_specificity"] <= n_genes)]
        for frame in _batches(path, ("gene_id", "gene_symbol"))
    ]
    return pd.concat(parts).sort_values(["feature", "rank_specificity"], kind="stable", ignore_index=True)


def _smallest(path: Path, by: Sequence[str], n_kept: int) -> pd.DataFrame:
    """The n_kept rows of each feature with the smallest values of `by`, in that order; read in batches."""
    kept: pd.DataFrame | None = None
    for frame in _batches(path, ()):
        kept = frame if kept is None else pd.concat([kept, frame])
        kept = kept.sort_values(["feature", *by], kind="stable")
        kept = kept[kept.groupby("feature").cumcount() < n_kept]
    assert kept is not None
    return kept.reset_index(drop=True)


def _batches(path: Path, repeated: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The table's rows in frames of at most 2^19 rows, at least one; `repeated` columns keep one copy of each text."""
    file = pq.ParquetFile(path, read_dictionary=list(repeated))
    empty = True
    for batch in file.iter_batches(_BATCH_ROWS):
        empty = False
        frame = batch.to_pandas()
        yield frame.astype(dict.fromkeys(repeated, object))
    if empty:
        yield file.schema_arrow.empty_table().to_pandas().astype(dict.fromkeys(repeated, object))
