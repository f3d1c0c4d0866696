"""Stage validate: a layer's features against gene sets, beside shuffled genes and raw neurons."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sae_genomics.artifacts import ANNOTATION_NULLS, BASELINE_GENES, FEATURE_GENES, FEATURE_TERMS
from sae_genomics.associations.stream import read_slots
from sae_genomics.progress import Progress, say, stop_point
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from sae_genomics.validation.enrichment import Enrichment, GeneLists, enrich, top_genes
from sae_genomics.validation.gene_sets import Membership, NoSetFits, membership
from sae_genomics.validation.nulls import null_row, shuffled_genes
from sae_genomics.validation.settings import check_settings

_COLUMNS = ["feature", "gene_symbol", "score", "specificity", "rank_score", "rank_specificity"]


def run_task(run: Run, task: int) -> None:
    """Leave feature_terms.parquet and annotation_nulls.parquet of the layer.

    Where no gene set fits the data there is nothing to test, which is no failure: both tables are then without rows, with
    the reason as their note.

    Raises UserError for gene-set files that cannot be used, DamagedArtifact when a table cannot be read.
    """
    layer, settings = run.layers[task], run.config.validation
    collections = check_settings(run.config)
    slots = read_slots(run)
    folder = run.layer_results(layer)
    seen = slots.gene_symbol[slots.counts > 0]
    weights = FEATURE_GENES.weights(folder / FEATURE_GENES.file)
    try:
        members = membership(collections, seen, settings.min_set_size, settings.max_set_size)
    except NoSetFits as nothing:
        say(f"validate layer {layer}: nothing to test: {nothing}")
        for table in (FEATURE_TERMS, ANNOTATION_NULLS):
            table.write(folder / table.file, table.schema.empty_table().to_pandas(), note=str(nothing), weights=weights)
        return
    progress = Progress(
        f"validate layer {layer}",
        settings.shuffles + 1 + len(settings.baselines),
        "passes",
        run.heartbeat_file(stage_named("validate"), task),
    )
    genes = FEATURE_GENES.read(folder / "feature_genes.parquet", _COLUMNS)
    lists = top_genes(genes, members, settings.rank_by, settings.top_genes)
    tests = enrich(lists, members.matrix)
    terms = feature_terms(lists, tests, members)
    rows = [null_row("features", 0, lists, tests, settings.fdr)]
    progress.advance(1)
    for repeat, shuffled in enumerate(shuffled_genes(lists, members, run.config.run.seed, layer, settings.shuffles)):
        stop_point()
        rows.append(null_row("shuffled_genes", repeat, lists, shuffled, settings.fdr))
        progress.advance(1)
    for name in settings.baselines:
        units = BASELINE_GENES[name].read(folder / BASELINE_GENES[name].file, _COLUMNS)
        unit_lists = top_genes(units, members, settings.rank_by, settings.top_genes)
        rows.append(null_row(name, 0, unit_lists, enrich(unit_lists, members.matrix), settings.fdr))
        progress.advance(1)
    FEATURE_TERMS.write(folder / "feature_terms.parquet", terms, weights=weights)
    ANNOTATION_NULLS.write(folder / "annotation_nulls.parquet", pd.DataFrame(rows), weights=weights)
    progress.finish(f"{rows[0]['n_annotated']} of {rows[0]['n_units']} features annotated")


def feature_terms(lists: GeneLists, tests: Enrichment, members: Membership) -> pd.DataFrame:
    """The rows of feature_terms.parquet, by feature, then p."""
    order = np.lexsort((tests.p_value, tests.row))
    row, term = tests.row[order], tests.term[order]
    return pd.DataFrame(
        {
            "feature": lists.unit[row].astype(np.int32),
            "collection": members.collection[term],
            "term": members.term[term],
            "n_overlap": tests.n_overlap[order],
            "n_term": tests.n_term[order],
            "n_top": tests.n_top[order],
            "n_background": len(members.background),
            "odds_ratio": tests.odds_ratio[order],
            "p_value": tests.p_value[order],
            "q_value": tests.q_value[order],
            "genes": _shared(lists, tests, members)[order],
        }
    )


def _shared(lists: GeneLists, tests: Enrichment, members: Membership) -> npt.NDArray[np.object_]:
    """Shared symbols of each test, comma-separated.

    Every listed gene brings the sets it is in, which gives (list, set, gene) once per shared gene; sorted by list and set
    they are the tests, in order.
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
    text = pc.binary_join(pa.LargeListArray.from_arrays(offsets, names), ",")
    result = np.empty(len(tests.row), dtype=object)
    result[np.argsort(tests.row * n_terms + tests.term)] = text.to_numpy(zero_copy_only=False)
    return result
