"""What validation adds: features that match gene sets, beside chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_NAMES, FEATURE_TERMS
from sae_genomics.report import annotation_wording, figures_annotation
from sae_genomics.report.annotation import annotation
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.dashboard_terms import TermsPanel
from sae_genomics.report.evidence import read_terms
from sae_genomics.report.markdown import code, listing
from sae_genomics.report.reading import Reading
from sae_genomics.report.section_annotation import FIGURES, figure_name
from sae_genomics.report.section_annotation import annotation as section
from sae_genomics.report.summary import LayerSummary
from sae_genomics.validation.gene_sets import COLLECTIONS


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    nulls = results.table("annotation_nulls")
    if nulls is not None:
        summary.annotation = annotation(nulls)
    summary.nothing_tested = results.notes.get("annotation_nulls")
    path = results.files.get("annotation_nulls")
    said = ANNOTATION_NULLS.fact(path, COLLECTIONS) if path is not None else None
    summary.parts["collections"] = json.loads(said) if said else []


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
    return drawings


def _layer_facts(summary: LayerSummary) -> dict[str, object]:
    note = summary.annotation
    if note is None:
        return {"sources": []}
    said = f"{annotation_wording.headline(summary.layer, note)} {annotation_wording.beside(note)}".rstrip()
    return {"headline": said, "sources": note.facts, "collections": summary.parts["collections"]}


GENE_SETS = Contribution(
    name="gene sets",
    order=40,
    tables=(
        Reading("terms", (FEATURE_TERMS,), read_terms),
        Reading("annotation_nulls", (ANNOTATION_NULLS,)),
        Reading("names", (FEATURE_NAMES,)),
    ),
    take_layer=_take,
    section=section,
    findings=_findings,
    caveats=lambda contents: [Said(40, annotation_wording.by_chance_often(contents.layers))],
    facts=_facts,
    figures=_figures,
    figure_files=("annotation.png", FIGURES),
    panel=TermsPanel,
    layer_facts=_layer_facts,
    headline=annotation_wording.verdict,
    compared_with=lambda wording: Said(30, "known gene sets"),
    matched=lambda wording: Said(10, "a gene set"),
    found_by=lambda wording: Said(30, "gene set"),
    changes=lambda wording: [("test against your own gene sets", "`validation.gmt: [my_sets.gmt]`")],
)
