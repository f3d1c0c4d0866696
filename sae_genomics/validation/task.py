"""Stage validate: a layer's features and its baselines against gene sets, each beside two nulls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sae_genomics.artifacts import (
    ANNOTATION_NULLS,
    BASELINE_GENES,
    FEATURE_GENES,
    FEATURE_NAMES,
    FEATURE_TERMS,
    GENE_TOKENS,
    Table,
)
from sae_genomics.progress import Progress, say, stop_point
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from sae_genomics.validation.background import Background, background_of, token_column
from sae_genomics.validation.enrichment import Enrichment
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.enrichment_tests import enrichment_test_named
from sae_genomics.validation.gene_lists import GeneLists, top_genes
from sae_genomics.validation.gene_sets import COLLECTIONS, Membership, NoSetFits, described
from sae_genomics.validation.names import write_names
from sae_genomics.validation.nulls import MATCHED, SHUFFLED, null_row, null_tests, untested_row
from sae_genomics.validation.settings import check_settings

FEATURES = "features"
_COLUMNS = ["feature", "gene_symbol", "score", "specificity", "rank_score", "rank_specificity"]


def run_task(run: Run, task: int) -> None:
    """Leave feature_terms.parquet, annotation_nulls.parquet and feature_names.parquet of the layer.

    Where no gene set fits the data there is nothing to test, which is no failure: all tables are then without rows, with
    the reason as their note.

    Raises UserError for gene-set files that cannot be used, DamagedArtifact when a table cannot be read.
    """
    layer, settings = run.layers[task], run.config.validation
    collections, test = check_settings(run.config), enrichment_test_named(settings.test)
    folder = run.layer_results(layer)
    weights = FEATURE_GENES.weights(folder / FEATURE_GENES.file)
    genes = GENE_TOKENS.read(folder / GENE_TOKENS.file)
    try:
        background = background_of(FEATURES, genes, collections, run.config)
    except NoSetFits as nothing:
        say(f"validate layer {layer}: nothing to test: {nothing}")
        for table in (FEATURE_TERMS, ANNOTATION_NULLS, FEATURE_NAMES):
            table.write(folder / table.file, table.schema.empty_table().to_pandas(), note=str(nothing), weights=weights)
        return
    n_passes = (1 + len(settings.baselines)) * (1 + 2 * settings.shuffles)
    heartbeat = run.heartbeat_file(stage_named("validate"), task)
    progress = Progress(f"validate layer {layer}", n_passes, "passes", heartbeat)
    lists = _read_lists(run, folder, FEATURE_GENES, background.members)
    tests = test.run(lists, background.members.matrix)
    terms = feature_terms(lists, tests, background.members)
    rows = []
    for row in beside_nulls(run, test, layer, FEATURES, lists, tests, background):
        rows.append(row)
        progress.advance(1)
    known = {token_column(FEATURES, genes): background}
    for name in settings.baselines:
        column = token_column(name, genes)
        try:
            background = known[column] if column in known else background_of(name, genes, collections, run.config)
        except NoSetFits as nothing:
            say(f"validate layer {layer}: {name}: nothing to test: {nothing}")
            rows.append(untested_row(name))
            continue
        others = _read_lists(run, folder, BASELINE_GENES[name], background.members)
        tests = test.run(others, background.members.matrix)
        for row in beside_nulls(run, test, layer, name, others, tests, background):
            rows.append(row)
            progress.advance(1)
    FEATURE_TERMS.write(folder / "feature_terms.parquet", terms, weights=weights, inference=test.inference)
    write_names(folder, terms, lists.unit, collections, settings.fdr, weights)
    facts = {COLLECTIONS: json.dumps(described(collections, known[token_column(FEATURES, genes)].members))}
    ANNOTATION_NULLS.write(folder / "annotation_nulls.parquet", pd.DataFrame(rows), weights=weights, facts=facts)
    progress.finish(f"{rows[0]['n_annotated']} of {rows[0]['n_units']} features annotated")


def _read_lists(run: Run, folder: Path, table: Table, members: Membership) -> GeneLists:
    settings = run.config.validation
    return top_genes(table.read(folder / table.file, _COLUMNS), members, settings.rank_by, settings.top_genes)


def beside_nulls(
    run: Run,
    test: EnrichmentTest,
    layer: int,
    units: str,
    lists: GeneLists,
    tests: Enrichment,
    background: Background,
) -> Iterator[dict[str, object]]:
    """The rows of annotation_nulls.parquet for one kind of units: the lists as they are, then each repeat of both nulls."""
    settings, seed = run.config.validation, run.config.run.seed
    yield null_row(units, units, 0, lists, tests, settings.fdr)
    for null in (SHUFFLED, MATCHED):
        repeats = null_tests(test, null, lists, background.members, background.bins, seed, layer, settings.shuffles)
        for repeat, shuffled in enumerate(repeats):
            stop_point()
            yield null_row(null, units, repeat, lists, shuffled, settings.fdr)


def feature_terms(lists: GeneLists, tests: Enrichment, members: Membership) -> pd.DataFrame:
    """The rows of feature_terms.parquet, by feature, then p."""
    order = np.lexsort((tests.p_value, tests.row))
    row, term = tests.row[order], tests.term[order]
    return pd.DataFrame(
        {
            "feature": lists.unit[row].astype(np.int32),
            "collection": members.collection[term],
            "term": members.term[term],
            "term_id": members.term_id[term],
            "n_overlap": tests.n_overlap[order],
            "n_term": tests.n_term[order],
            "n_top": tests.n_top[order],
            "n_background": len(members.background),
            "odds_ratio": tests.odds_ratio[order],
            "odds_ratio_low": np.nan,
            "odds_ratio_high": np.nan,
            "p_value": tests.p_value[order],
            "q_value": tests.q_value[order],
            "q_source": np.nan,
            "p_matched": np.nan,
            "q_matched": tests.q_value[order],
            "q_source_matched": np.nan,
            "explained_by": "",
            "genes": _shared(lists, tests, members)[order],
        }
    )


def _shared(lists: GeneLists, tests: Enrichment, members: Membership) -> npt.NDArray[np.object_]:
    """Shared symbols of each test, comma-separated; empty where list and set share none.

    Every listed gene brings the sets it is in, which gives (list, set, gene) once per shared gene.
    """
    sets, n_terms = members.matrix, len(members.term)
    row = np.repeat(np.arange(len(lists.unit)), lists.sizes)
    gene = lists.matrix.indices.astype(np.int64)
    n_sets = np.diff(sets.indptr)[gene].astype(np.int64)
    first = np.cumsum(n_sets) - n_sets
    entry = np.repeat(sets.indptr[gene] - first, n_sets) + np.arange(int(n_sets.sum()))
    pair = np.repeat(row, n_sets) * n_terms + sets.indices[entry]
    order = np.argsort(pair, kind="stable")
    names = pa.array(members.symbols).take(pa.array(np.repeat(gene, n_sets)[order]))
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    offsets = pa.array(np.append(starts, len(pair)).astype(np.int64))
    text = pc.binary_join(pa.LargeListArray.from_arrays(offsets, names), ",").to_numpy(zero_copy_only=False)
    sharing, tested = pair[order][starts], tests.row * n_terms + tests.term
    at = np.searchsorted(sharing, tested)
    result = np.append(text, "")[at]
    result[np.append(sharing, -1)[at] != tested] = ""
    return result
