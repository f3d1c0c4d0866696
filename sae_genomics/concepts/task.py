"""Stage concepts: a vector for each concept of a layer, beside its nulls, baselines and confounds.

1. The concepts are named, and the items and tokens that stand for them are chosen.
2. One pass over the layer's activations keeps those rows.
3. Each concept is fitted on training rows and scored on held-out rows (`measure.py`), and so are shuffled and random concepts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from sae_genomics.activations.extraction.extract import use_allotted_cores
from sae_genomics.artifacts import CONCEPT_CONFOUNDS, CONCEPT_NULLS, CONCEPT_VECTORS, Table
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.associations.stream import layer_blocks, token_blocks
from sae_genomics.concepts.concept import Concept, Ints, LeftOut, NamedConcepts
from sae_genomics.concepts.item_table import input_columns, more_columns
from sae_genomics.concepts.measure import Measured, measure
from sae_genomics.concepts.named import concepts_of, expression_bins, own_columns
from sae_genomics.concepts.pool import Pool, described_items
from sae_genomics.concepts.rows import collect
from sae_genomics.concepts.sampling import Sample, choose, unit_rows
from sae_genomics.concepts.section import ConceptsConfig
from sae_genomics.concepts.uses import write_uses
from sae_genomics.concepts.vectors import write_vectors
from sae_genomics.data.units import Units
from sae_genomics.progress import Progress, stop_point
from sae_genomics.run import Run
from sae_genomics.stages import stage_named


def run_task(run: Run, task: int) -> None:
    """Leave the layer's files of `files.concepts_files`.

    Raises UserError for a file of examples that the run's items do not fit, DamagedArtifact when an input cannot be read.
    """
    use_allotted_cores()
    layer, settings = run.layers[task], run.config.concepts
    columns = input_columns(run)
    named, units = concepts_of(run, columns), run.kind.read_units(run)
    heartbeat = run.heartbeat_file(stage_named("concepts"), task)
    progress = Progress(f"concepts layer {layer}", len(named), "concepts", heartbeat)
    pool = read_pool(run, layer, named, units, columns)
    measured = measure_all(pool, settings, run.config.run.seed, progress)
    folder = run.layer_results(layer)
    folder.mkdir(parents=True, exist_ok=True)
    write_tables(folder, measured, named.left_out)
    facts = {
        "layer": layer, "hook": run.config.model.hook, "settings": settings.model_dump(mode="json"),
        "left_out": [{"concept": each.id, "kind": each.kind, "name": each.name, "why": each.why} for each in named.left_out],
    }  # fmt: skip
    vectors = [each.vector for each in measured if each.vector is not None]
    write_vectors(folder, vectors, run.model_info.d_model, facts)
    null_vectors = {each.vector.concept: each.null_vectors for each in measured if each.vector is not None}
    write_uses(run, layer, named, vectors, null_vectors)
    progress.finish()


def measure_all(pool: Pool, settings: ConceptsConfig, seed: int, progress: Progress) -> list[Measured]:
    """Every concept, several at a time where there are several cores; each has a generator of its own, so that order does not matter."""

    def one(concept: Concept) -> Measured:
        stop_point()
        rows = pool.rows(concept)
        measured = measure(rows, pool.evidence(rows), settings, seed)
        progress.advance(1)
        return measured

    pool.prepare()
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(torch.get_num_threads(), "concepts") as threads:
        return list(threads.map(one, pool.named))


def read_pool(run: Run, layer: int, named: NamedConcepts, units: Units, columns: pd.DataFrame) -> Pool:
    """The rows of a layer that stand for its concepts, in one pass over its activations. columns: as `input_columns` gives them."""
    settings = run.config.concepts
    items = run.kind.read_items(run, ["item_id", "group", "label"])
    labels = pd.factorize(items["label"])[0].astype(np.int64)
    sample = choose(named, labels, np.zeros(len(units), np.int64), settings, run.config.run.seed)
    if sample.units.any():
        sample.unit_tokens[:] = _unit_tokens(run, units, named, sample)
    blocks = layer_blocks(run, layer, units, named.heldout, run.config.associations.batch_tokens)
    rows = collect(_stoppable(blocks), sample, named, run.model_info.d_model)
    asked = ("concepts.confounds", "concepts.confound_columns")
    more = more_columns(run, items["item_id"], settings.confounds, columns[settings.confound_columns], asked)
    more = more.drop(
        columns=[name for name in own_columns(run) if name in more.columns]
    )  # audited as label, and as group
    return Pool(named, sample, rows, expression_bins(units.counts), described_items(items, more), settings.pca)


def _stoppable(blocks: Any) -> Any:
    for block in blocks:
        stop_point()
        yield block


def _unit_tokens(run: Run, units: Units, named: NamedConcepts, sample: Sample) -> Ints:
    """Stored tokens of each unit on its own side of the split: int64 [units]. Reads no activations."""
    counts = np.zeros(len(units), np.int64)
    heldout = named.heldout if named.heldout.any() else named.heldout_alone
    for block in token_blocks(run, units, named.heldout, run.config.associations.batch_tokens):
        rows = unit_rows(block, sample.units, named.heldout_units, heldout)
        counts += np.bincount(block.unit[rows], minlength=len(units))
    return counts


def write_tables(folder: Path, measured: list[Measured], left_out: tuple[LeftOut, ...]) -> None:
    """The three tables. q is over the layer's concepts."""
    vectors = _frame(CONCEPT_VECTORS, [each.row for each in measured])
    vectors["q_value"] = benjamini_hochberg(vectors["p_value"].to_numpy(np.float64))
    if not left_out:
        note = None
    else:
        first = left_out[0]
        note = (
            f"{len(left_out):,} concepts have no vector; concepts.json says why. The first is {first.name}: {first.why}"
        )
    CONCEPT_VECTORS.write(folder / CONCEPT_VECTORS.file, vectors, note=note)
    CONCEPT_NULLS.write(
        folder / CONCEPT_NULLS.file, _frame(CONCEPT_NULLS, [row for each in measured for row in each.nulls])
    )
    CONCEPT_CONFOUNDS.write(
        folder / CONCEPT_CONFOUNDS.file, _frame(CONCEPT_CONFOUNDS, [row for each in measured for row in each.confounds])
    )


def _frame(table: Table, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows with every column of the table; what a row lacks is null, or 0 and false where the column has none."""
    frame = pd.DataFrame(rows, columns=[column.name for column in table.columns])
    defaults = {"int32": 0, "int64": 0, "bool": False}
    for column in table.columns:
        kind = str(column.type)
        if kind in defaults:
            frame[column.name] = frame[column.name].where(frame[column.name].notna(), defaults[kind]).astype(kind)
        elif kind == "double":
            frame[column.name] = frame[column.name].astype(np.float64)
        else:
            frame[column.name] = frame[column.name].astype(object).where(frame[column.name].notna(), None)
    return frame
