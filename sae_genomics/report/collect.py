"""What a run has left so far: every artifact that is done, read in the little pieces a report needs.

Nothing here raises because something is missing or damaged; what cannot be read is put on the list of problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from sae_genomics.artifacts import Inference
from sae_genomics.atomic import read_json
from sae_genomics.errors import Interrupted
from sae_genomics.progress import say
from sae_genomics.report import reading
from sae_genomics.report.reading import Reading
from sae_genomics.run import Run
from sae_genomics.stages import stages_of

P = ParamSpec("P")
T = TypeVar("T")
_ITEM_FILES = (("cells.parquet", "cell_type"), ("items.parquet", "label"))  # and their column of labels


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
    """Artifacts of `prepare`; None where they are not done."""

    plan: dict[str, Any] | None = None
    labels: pd.DataFrame | None = None
    """per label (index) the numbers `train` and `heldout` of items; None without labels"""
    spans: tuple[int, int] | None = None
    """annotated stretches, and different concepts; None where the run has none"""

    @property
    def n_items(self) -> int | None:
        """Items of the run."""
        plan = self.plan or {}
        return plan.get("n_items", plan.get("n_cells"))


@dataclass
class RunResults:
    """The run's own tables, those of no layer, as far as they are done. The fields are those of `LayerResults`."""

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    inference: dict[str, Inference] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame | None:
        """The rows of a `Reading`; None where they are not there."""
        return self.tables.get(name)


@dataclass
class LayerResults:
    """One layer's artifacts, as far as they are done."""

    layer: int
    metrics: dict[str, Any] | None = None
    """metrics.json of the SAE"""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """name of a `Reading` -> its rows"""
    inference: dict[str, Inference] = field(default_factory=dict)
    """name of a `Reading` -> what its statistics are about, of the tables that say so"""
    notes: dict[str, str] = field(default_factory=dict)
    """name of a `Reading` -> why it has no rows, of the empty tables that say so"""
    files: dict[str, Path] = field(default_factory=dict)
    """name of a `Reading` -> the file it was read from"""
    features_file: Path | None = None
    """features.h5ad, when done"""
    activations: csr_matrix | None = None
    """float32 [sampled items, d_sae], largest activation per item; None where no items are sampled"""

    def table(self, name: str) -> pd.DataFrame | None:
        """The rows of a `Reading`; None where they are not there."""
        return self.tables.get(name)


def done_files(run: Run, unit: str, task: int) -> set[Path]:
    """Files of the tasks numbered `task` that are done, of all stages whose tasks work on a `unit` (run, shard, layer)."""
    stages = [stage for stage in stages_of(run) if stage.unit == unit and not stage.partial]
    files = (path for stage in stages if run.state(stage, task).done for path in stage.files(run, task))
    return {path for path in files if path.exists()}  # a file may have gone since


def read_prepared(run: Run, problems: Problems) -> Prepared:
    """Read what was made of the input before any model ran."""
    if run.plan_file not in done_files(run, "run", 0):
        return Prepared()
    found = Prepared(plan=problems.attempt(run.plan_file, _mapping, run.plan_file))
    for name, column in _ITEM_FILES:
        path = run.prepare_dir / name
        if path.exists():
            found.labels = problems.attempt(path, count_labels, path, column)
            break
    spans = run.prepare_dir / "spans.parquet"
    if spans.exists():
        found.spans = problems.attempt(spans, _count_spans, spans)
    return found


def read_layer(run: Run, task: int, problems: Problems, readings: Iterable[Reading]) -> LayerResults:
    """Read what is done of the layer at position `task` of run.layers."""
    layer = run.layers[task]
    found = LayerResults(layer)
    done, folder = done_files(run, "layer", task), run.layer_results(layer)
    metrics, features = run.sae_dir(layer) / "metrics.json", folder / "features.h5ad"
    if metrics in done:
        found.metrics = problems.attempt(metrics, _mapping, metrics)
    for wanted in readings:
        _read_table(run, wanted, folder, done, problems, found)
    if features in done:
        found.features_file = features
    return found


def read_run_tables(run: Run, problems: Problems, readings: Iterable[Reading]) -> RunResults:
    """Read what is done of the tables that no layer has."""
    found, done = RunResults(), done_files(run, "run", 0)
    for wanted in readings:
        _read_table(run, wanted, run.results / wanted.below, done, problems, found)
    return found


def _read_table(
    run: Run, wanted: Reading, folder: Path, done: set[Path], problems: Problems, found: LayerResults | RunResults
) -> None:
    file = wanted.file(folder, done)
    if file is None:
        return
    table, path = file
    frame = problems.attempt(path, wanted.read, table, path, run.config)
    if frame is None:
        return
    found.tables[wanted.name] = frame
    found.files[wanted.name] = path
    said = problems.attempt(path, table.inference_of, path)
    if said is not None:
        found.inference[wanted.name] = said
    note = table.note(path) if frame.empty else None
    if note:
        found.notes[wanted.name] = note


def count_labels(path: Path, column: str) -> pd.DataFrame | None:
    """Numbers of train and held-out items per label, most frequent first; None without labels."""
    file = pq.ParquetFile(path, read_dictionary=[column])
    counts = pd.Series(dtype=np.int64)
    for batch in file.iter_batches(reading.BATCH_ROWS, columns=["heldout", column]):
        here = batch.to_pandas().astype({column: object}).groupby([column, "heldout"]).size()
        counts = counts.add(here, fill_value=0) if len(counts) else here
    if not len(counts):
        return None
    table = counts.astype(np.int64).unstack(fill_value=0).reindex(columns=[False, True], fill_value=0)
    table.columns = pd.Index(["train", "heldout"])
    return table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]


def _count_spans(path: Path) -> tuple[int, int]:
    concepts = pq.read_table(path, columns=["concept"]).column("concept")
    return len(concepts), len(concepts.unique())


def _mapping(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
