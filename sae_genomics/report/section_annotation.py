"""report.md, known biology: per layer one table and one figure of features and baselines, each beside its two nulls."""

from __future__ import annotations

from typing import Any

from sae_genomics.report import inference, section_sources
from sae_genomics.report.annotation import MOST_LAYERS, Annotation, Null, Source, mean
from sae_genomics.report.annotation_wording import beside, headline
from sae_genomics.report.contents import Contents
from sae_genomics.report.files import annotation_files
from sae_genomics.report.markdown import NONE, count, decimal, details, escape, percent, table
from sae_genomics.report.sources_left_out import left_out
from sae_genomics.validation.enrichment_tests import enrichment_test_named

HEADER = (
    "Units", "Tested", "Annotated", "by chance, same expression", "by chance, any gene", "Different gene sets",
    "by chance, same expression", "by chance, any gene", "Gene sets per 100 units", "by chance, same expression", "by chance, any gene",
)  # fmt: skip
COLLECTIONS_HEADER = ("Gene sets of", "In the collection", "Tested", "Version", "Licence")
FIGURES = "annotation_layer_*.png"


def figure_name(layer: int) -> str:
    return f"annotation_layer_{layer:02d}"


def annotation(contents: Contents) -> str:
    tested = [(each, each.annotation) for each in contents.layers if each.annotation is not None]
    title = "## Features that match known biology"
    if not tested:
        nothing = next((each.nothing_tested for each in contents.layers if each.nothing_tested), None)
        return f"{title}\n\n{f'Nothing to test: {escape(nothing)}.' if nothing else 'Not tested yet.'}"
    known: list[dict[str, Any]] = next(
        (found for each in contents.layers if (found := each.parts.get("collections"))), []
    )
    parts = [title, section_sources.opening(contents), _method(contents)]
    parts += [_nulls(max(found.n_shuffles for _, found in tested)), _measures(), section_sources.by_source(contents)]
    parts += ["### Gene sets tested", collections_table(known), section_sources.contained(contents.layers)]
    parts += [left_out(contents.config, known), _handed_on(contents)]
    if len(tested) > 1:
        parts.append(contents.figure("annotation", "Annotated share and different gene sets by layer, beside chance"))
    for index, (summary, found) in enumerate(tested):
        layer = summary.layer
        said = f"{headline(layer, found)} {beside(found)}".rstrip()
        image = contents.figure(figure_name(layer), f"Layer {layer}: features and baselines beside chance")
        basis = inference.line([summary], "annotation_nulls")
        body = "\n\n".join(part for part in (said, layer_table(found), basis, image) if part)
        folded = index > 0 and len(tested) > MOST_LAYERS
        parts.append(
            details(f"Layer {layer}: gene sets", body) if folded else f"### Layer {layer}: gene sets\n\n{body}"
        )
    return "\n\n".join(part for part in parts if part)


def _method(contents: Contents) -> str:
    settings = contents.config.validation
    test = enrichment_test_named(settings.test)
    return (
        f"A unit is *annotated* when its top {settings.top_genes} genes share more genes with some gene set than chance allows: "
        f"{test.description}, q < {settings.fdr:g} over every test of its kind in the layer. Chance is asked twice, among all genes and "
        "among genes of the same expression, and the larger p counts. The background is the genes that could have entered a list and "
        "that the source of the gene set could have named. Units without a gene to test, dead features among them, are left out."
    )


def _nulls(n_shuffles: int) -> str:
    return (
        f"Chance is measured in two ways, {n_shuffles} times each, for the features and for each baseline:\n\n"
        "- *Same expression*: names are shuffled among genes that are detected as often and expressed as strongly; this keeps "
        "lists of highly expressed genes such lists, so what stands above it is more than expression.\n"
        "- *Any gene*: names are shuffled among all genes; this keeps the lengths of lists and sets and how much lists share, "
        "but not how often or how strongly a gene is expressed."
    )


def _handed_on(contents: Contents) -> str:
    """Where the table of all annotations is."""
    parquet, text = (path.name for path in annotation_files(contents.run))
    return (
        f"All annotations of all features, with their name, source, q and shared genes: [{text}]({text}) for a spreadsheet, "
        f"[{parquet}]({parquet}) for a program."
    )


def _measures() -> str:
    return (
        "More units have more chances to match. So two numbers stand beside the share: how many *different gene sets* are found, and "
        "how many per 100 units. Sets that share most of their genes count as one each. After a number stand the mean and the highest "
        "value by chance."
    )


def collections_table(known: list[dict[str, Any]]) -> str:
    """One row per collection that the first layer was tested against; empty for a run of a version that did not keep them."""
    rows = [
        (
            escape(each.get("title") or each["name"]), count(each["n_sets"]), count(each["n_fit"]),
            *(escape(each[name]) if each.get(name) else NONE for name in ("version", "licence")),
        )
        for each in known
    ]  # fmt: skip
    said = [
        f"- {escape(each.get('title') or each['name'])}: {escape(each['left_out'])}"
        for each in known
        if each.get("left_out")
    ]
    left_out = "\n".join(["Left out of the tests:", "", *said]) if said else ""
    return "\n\n".join(
        part for part in (table(COLLECTIONS_HEADER, rows, right=(1, 2)) if rows else "", left_out) if part
    )


def layer_table(found: Annotation) -> str:
    """One row per kind of units."""
    return table(HEADER, [_row(source) for source in found.sources], right=range(1, len(HEADER)))


def _row(source: Source) -> tuple[str, ...]:
    if not source.n_units:
        return (escape(source.label), "0", *[NONE] * (len(HEADER) - 2))
    return (
        escape(source.label),
        count(source.n_units),
        f"{count(source.n_annotated)} ({percent(source.share)})",
        _annotated(source.matched),
        _annotated(source.shuffled),
        count(source.n_terms),
        _spread(source.matched.n_terms),
        _spread(source.shuffled.n_terms),
        decimal(source.terms_per_100, 1),
        _spread(source.matched.terms_per_100),
        _spread(source.shuffled.terms_per_100),
    )


def _annotated(null: Null) -> str:
    if not null.n_annotated:
        return NONE
    return f"{decimal(mean(null.n_annotated), 1)} ({percent(mean(null.share))}), max {count(max(null.n_annotated))}"


def _spread(values: tuple[int, ...] | tuple[float, ...]) -> str:
    if not values:
        return NONE
    highest = max(values)
    return f"{decimal(mean(values), 1)}, max {count(highest) if isinstance(highest, int) else decimal(highest, 1)}"
