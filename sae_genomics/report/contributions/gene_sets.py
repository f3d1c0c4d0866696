"""What validation adds: features that match gene sets, beside chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_NAMES, FEATURE_TERMS
from sae_genomics.config import RunConfig
from sae_genomics.report import annotation_wording, figures_annotation, figures_sources, section_sources
from sae_genomics.report.annotation import annotation, by_collection
from sae_genomics.report.annotations_table import write_annotations
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.dashboard_terms import TermsPanel
from sae_genomics.report.markdown import code, listing
from sae_genomics.report.reading import Reading, smallest
from sae_genomics.report.section_annotation import FIGURES, figure_name
from sae_genomics.report.section_annotation import annotation as section
from sae_genomics.report.summary import LayerSummary
from sae_genomics.validation.gene_sets import COLLECTIONS

TERMS_KEPT = 12  # per feature
_NAMED = ["feature", "collection", "term"]


def _likeliest(path: Path, config: RunConfig) -> pd.DataFrame:
    """Of each feature the terms of the smallest p, and before them the one that gives its name."""
    terms = smallest(path, ("p_value",), TERMS_KEPT)
    names_file = path.parent / FEATURE_NAMES.file
    if terms.empty or not names_file.exists():
        return terms
    named = FEATURE_NAMES.read(names_file, _NAMED)
    passing = pq.read_table(path, filters=[("q_matched", "<", config.validation.fdr)], partitioning=None).to_pandas()
    first = passing.merge(named, on=_NAMED)[terms.columns]
    both = pd.concat([first, terms], ignore_index=True).drop_duplicates(_NAMED)
    return both.sort_values("feature", kind="stable", ignore_index=True)


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    nulls = results.table("annotation_nulls")
    if nulls is not None:
        summary.annotation = annotation(nulls)
        summary.parts["by_source"] = by_collection(nulls)
    summary.nothing_tested = results.notes.get("annotation_nulls")
    path = results.files.get("annotation_nulls")
    said = ANNOTATION_NULLS.fact(path, COLLECTIONS) if path is not None else None
    summary.parts["collections"] = json.loads(said) if said else []
    names = results.table("names")
    summary.parts["names"] = section_sources.NameCounts.of(names) if names is not None else None
    if {"terms", "names"} <= set(results.files):
        summary.parts["annotation_files"] = (results.files["terms"], results.files["names"])


def _findings(contents: Contents) -> list[Said]:
    return [Said(10, annotation_wording.opening(contents.layers, contents.config.validation.fdr))]


def _facts(contents: Contents) -> list[tuple[str, str]]:
    validation = contents.config.validation
    named = ["built-in"] if validation.builtin else []
    named += [code(Path(path).name, in_table=True) for path in validation.gmt]
    named += [code(name, in_table=True) for name in validation.sources]
    known: list[dict[str, str]] = next(
        (found for each in contents.layers if (found := each.parts.get("collections"))), []
    )
    named += [code(each["name"], in_table=True) for each in known if each.get("database")]
    return [
        (
            "Gene sets",
            f"{listing(named) or 'none'}; each feature's top {validation.top_genes} genes by {validation.rank_by}, "
            f"q < {validation.fdr:g}",
        )
    ]


def _figures(contents: Contents) -> Mapping[str, Draw]:
    fdr = contents.config.validation.fdr
    drawings: dict[str, Draw] = {"annotation": lambda: figures_annotation.annotation(contents.layers, fdr)}
    for each in contents.layers:
        if each.annotation is not None:
            draw = partial(figures_annotation.layer_annotation, each.layer, each.annotation, fdr)
            drawings[figure_name(each.layer)] = draw
    sources = section_sources.tested_of(contents.layers)
    titles = {name: section_sources.title_of(contents.layers, name) for name in sources}
    drawings[section_sources.FIGURE] = lambda: figures_sources.by_source(sources, titles)
    return drawings


def _layer_facts(summary: LayerSummary) -> dict[str, object]:
    note = summary.annotation
    if note is None:
        return {"sources": []}
    said = f"{annotation_wording.headline(summary.layer, note)} {annotation_wording.beside(note)}".rstrip()
    return {"headline": said, "sources": note.facts}


GENE_SETS = Contribution(
    name="gene sets",
    order=40,
    tables=(
        Reading("terms", (FEATURE_TERMS,), _likeliest),
        Reading("annotation_nulls", (ANNOTATION_NULLS,)),
        Reading("names", (FEATURE_NAMES,)),
    ),
    take_layer=_take,
    gather=write_annotations,
    section=section,
    findings=_findings,
    caveats=lambda contents: [Said(40, annotation_wording.by_chance_often(contents.layers))],
    facts=_facts,
    figures=_figures,
    figure_files=("annotation.png", f"{section_sources.FIGURE}.png", FIGURES),
    panel=TermsPanel,
    layer_facts=_layer_facts,
    headline=annotation_wording.verdict,
    compared_with=lambda wording: Said(30, "known gene sets"),
    matched=lambda wording: Said(10, "a gene set"),
    found_by=lambda wording: Said(30, "gene set"),
    changes=lambda wording: [("test against your own gene sets", "`validation.gmt: [my_sets.gmt]`")],
)
