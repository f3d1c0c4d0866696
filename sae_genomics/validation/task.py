"""Stage validate: a layer's features and its baselines against gene sets, each beside two nulls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from sae_genomics.artifacts import (
    ANNOTATION_NULLS,
    FEATURE_GENES,
    FEATURE_NAMES,
    FEATURE_TERMS,
    GENE_TOKENS,
    RANKINGS,
)
from sae_genomics.progress import Progress, say, stop_point
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from sae_genomics.validation.background import FEATURES, Background, background_of, token_column
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.enrichment_tests import enrichment_test_named
from sae_genomics.validation.feature_terms import KEPT_BEST, all_terms_of
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.gene_sets import COLLECTIONS, Membership, NoSetFits, described
from sae_genomics.validation.listed import read_lists
from sae_genomics.validation.names import write_names
from sae_genomics.validation.network_tables import write_network
from sae_genomics.validation.null_rows import Tested, null_rows, untested_rows
from sae_genomics.validation.nulls import MATCHED, SHUFFLED, annotated, null_tests
from sae_genomics.validation.rankings import whole_rankings
from sae_genomics.validation.regulon_tables import write_regulons
from sae_genomics.validation.settings import check_settings


def run_task(run: Run, task: int) -> None:
    """Leave the layer's tables on gene sets, names, networks and regulons.

    Where no gene set fits the data there is nothing to test, which is no failure: its three tables are then without rows, with
    the reason as their note.

    Raises UserError for gene-set files and networks that cannot be used, DamagedArtifact when a table cannot be read.
    """
    layer, settings = run.layers[task], run.config.validation
    collections, test = check_settings(run.config), enrichment_test_named(settings.test)
    folder = run.layer_results(layer)
    ranked = RANKINGS[FEATURES] if test.reads == "ranking" else FEATURE_GENES
    weights = ranked.weights(folder / ranked.file)
    genes = GENE_TOKENS.read(folder / GENE_TOKENS.file)
    write_network(run, layer)
    write_regulons(run, layer)
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
    rows: list[dict[str, object]] = []
    lists = _read_lists(run, folder, FEATURES, background.members)
    for found in beside_nulls(run, test, layer, FEATURES, lists, background):
        rows += found
        progress.advance(1)
    known = {token_column(FEATURES, genes): background}
    for name in settings.baselines:
        column = token_column(name, genes)
        try:
            other = known[column] if column in known else background_of(name, genes, collections, run.config)
        except NoSetFits as nothing:
            say(f"validate layer {layer}: {name}: nothing to test: {nothing}")
            rows += untested_rows(name, background.members.sources)
            continue
        others = _read_lists(run, folder, name, other.members)
        for found in beside_nulls(run, test, layer, name, others, other):
            rows += found
            progress.advance(1)
    terms = all_terms_of(test, lists, background, collections, settings.fdr, KEPT_BEST)
    FEATURE_TERMS.write(folder / FEATURE_TERMS.file, terms, weights=weights, inference=test.inference)
    write_names(folder, terms, lists.unit, collections, settings.fdr, weights)
    facts = {COLLECTIONS: json.dumps(described(collections, background.members))}
    ANNOTATION_NULLS.write(folder / ANNOTATION_NULLS.file, pd.DataFrame(rows), weights=weights, facts=facts)
    progress.finish(f"{rows[0]['n_annotated']} of {rows[0]['n_units']} features annotated")


def _read_lists(run: Run, folder: Path, units: str, members: Membership) -> GeneLists:
    settings = run.config.validation
    if enrichment_test_named(settings.test).reads == "ranking":
        values = RANKINGS[units].read(folder / RANKINGS[units].file)
        symbols = GENE_TOKENS.read(folder / GENE_TOKENS.file, ["gene_symbol"])["gene_symbol"].to_numpy(object)
        return whole_rankings(values, symbols, members, settings.top_genes)
    return read_lists(folder, units, members, run.config)


def beside_nulls(
    run: Run, test: EnrichmentTest, layer: int, units: str, lists: GeneLists, background: Background
) -> Iterator[list[dict[str, object]]]:
    """The rows of annotation_nulls.parquet for one kind of units: the lists as they are, then each repeat of both nulls."""
    settings, sets, names = run.config.validation, background.sets, background.members.sources
    seeds = (run.config.run.seed, layer)
    yield null_rows(
        Tested(units, units, 0), lists, sets, names, annotated(test, lists, sets, settings.fdr), settings.fdr
    )
    for null in (SHUFFLED, MATCHED):
        shuffled = null_tests(test, null, lists, sets, seeds, settings.shuffles, settings.fdr)
        for repeat, found in enumerate(shuffled):
            stop_point()
            yield null_rows(Tested(null, units, repeat), lists, sets, names, found, settings.fdr)
