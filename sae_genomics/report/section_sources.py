"""report.md, known biology by source: a paragraph, a figure, one table of shares and gene sets, and what the names rest on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sae_genomics.artifacts.names import UNNAMED
from sae_genomics.report import comparison, inference
from sae_genomics.report.annotation import FEATURES, LABELS, MOST_LAYERS, Annotation, Source, mean
from sae_genomics.report.annotation_wording import verdict
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import NONE, count, decimal, details, escape, listing, percent, span, table
from sae_genomics.report.summary import LayerSummary

FIGURE = "annotation_sources"


Sources = dict[str, list[tuple[int, Annotation]]]


def tested_of(layers: Sequence[LayerSummary]) -> Sources:
    """collection -> (layer, what was found) of every layer that was tested with it; without those of which no gene set fits."""
    found: Sources = {}
    for each in layers:
        fits = {known["name"]: known["n_fit"] for known in each.parts.get("collections", [])}
        for name, said in each.parts.get("by_source", {}).items():
            if fits.get(name, 1):
                found.setdefault(name, []).append((each.layer, said))
    return found


def matched_of(sources: Sources) -> Sources:
    """Those of which any unit matches a gene set."""
    return {
        name: found
        for name, found in sources.items()
        if any(each.n_terms for _, said in found for each in said.sources)
    }


def title_of(layers: Sequence[LayerSummary], name: str) -> str:
    """A database's title; the name itself of other collections."""
    known = (each for summary in layers for each in summary.parts.get("collections", []))
    return next((str(each["title"]) for each in known if each["name"] == name and each.get("title")), name)


def opening(contents: Contents) -> str:
    """The section's first paragraph: what is above chance, and whether features beat simpler means."""
    layers = contents.layers
    tested = [(each.layer, each.annotation) for each in layers if each.annotation is not None]
    sources = tested_of(layers)
    said = comparison.by_source(matched_of(sources), lambda name: title_of(layers, name)) if len(sources) > 1 else ""
    return escape(" ".join(filter(None, (verdict(layers), comparison.paragraph(tested), said))))


def by_source(contents: Contents) -> str:
    """The part of the section; empty where the tables do not tell sources apart."""
    layers = contents.layers
    sources = tested_of(layers)
    if not sources:
        return ""
    shown = matched_of(sources)
    silent = [escape(title_of(layers, name)) for name in sources if name not in shown]
    parts = [
        "### By source of gene sets",
        "Each cell has the units that match a gene set of that source alone, their share, and how many different gene sets they "
        "find. Raw neurons and components count with both signs. *By chance* is the mean over the shuffles among genes of the same "
        "expression.",
        contents.figure(FIGURE, "Annotated share and different gene sets by source and layer, beside chance"),
        _tables(shown, layers) if shown else "",
        inference.line(layers, "annotation_nulls") if shown else "",
        f"Tested without any match in any layer: {listing(silent)}." if silent else "",
        rests_on(layers),
    ]
    return "\n\n".join(part for part in parts if part)


def _tables(sources: Sources, layers: Sequence[LayerSummary]) -> str:
    whole = source_table(sources, lambda name: title_of(layers, name))
    if max(len(found) for found in sources.values()) <= MOST_LAYERS:
        return whole
    return f"{range_table(sources, layers)}\n\n{details('By source and layer', whole)}"


def _kinds(sources: Sources) -> list[str]:
    """All kinds of units but the features, in the order of the tables."""
    return list(dict.fromkeys(each.units for found in sources.values() for _, said in found for each in said.baselines))


def _header(kinds: list[str]) -> list[str]:
    return ["SAE features", "by chance", *(escape(LABELS.get(kind, kind)) for kind in kinds)]


def source_table(sources: Sources, label: Callable[[str], str]) -> str:
    """One row per source and layer."""
    kinds = _kinds(sources)
    rows = []
    for name, found in sources.items():
        for layer, said in found:
            of = {each.units: each for each in said.sources}
            cells = [_cell(of.get(kind)) for kind in kinds]
            rows.append([escape(label(name)), str(layer), _cell(of[FEATURES]), _chance(of[FEATURES]), *cells])
    return table(["Source", "Layer", *_header(kinds)], rows, right=range(1, 4 + len(kinds)))


def _cell(source: Source | None) -> str:
    """`22 (18.3 %), 9 sets`"""
    if source is None or not source.n_units:
        return NONE
    return f"{count(source.n_annotated)} ({percent(source.share)}), {_sets(count(source.n_terms))}"


def _chance(source: Source) -> str:
    null = source.matched
    if not null.n_annotated:
        return NONE
    shown = f"{decimal(mean(null.n_annotated), 1)} ({percent(mean(null.share))})"
    return f"{shown}, {_sets(decimal(mean(null.n_terms), 1))}"


def _sets(number: str) -> str:
    return f"{number} set" if number == "1" else f"{number} sets"


def range_table(sources: Sources, layers: Sequence[LayerSummary]) -> str:
    """One row per source, with the lowest and highest value over the layers."""
    kinds = _kinds(sources)
    rows = []
    for name, found in sources.items():
        units = [each for _, said in found for each in said.sources]
        cells = [_range([each for each in units if each.units == kind]) for kind in kinds]
        features = [said.features for _, said in found]
        rows.append(
            [escape(title_of(layers, name)), str(len(found)), _range(features), _chance_range(features), *cells]
        )
    return table(["Source", "Layers", *_header(kinds)], rows, right=range(1, 4 + len(kinds)))


def _range(found: list[Source]) -> str:
    known = [each for each in found if each.n_units]
    if not known:
        return NONE
    return f"{span((each.share for each in known), percent)}, {span((each.n_terms for each in known), count)} sets"


def _chance_range(features: list[Source]) -> str:
    nulls = [each.matched for each in features if each.matched.n_annotated]
    if not nulls:
        return NONE
    n_terms = span((mean(each.n_terms) for each in nulls), lambda number: decimal(number, 1))
    return f"{span((mean(each.share) for each in nulls), percent)}, {n_terms} sets"


@dataclass(frozen=True)
class NameCounts:
    """Of one layer: features with a name, by the source of the term, and how many rest on several independent sources."""

    n_features: int
    by_source: dict[str, int]
    by_basis: dict[str, int]
    """independent source -> names that rest on it, alone or beside others"""
    n_several: int

    @classmethod
    def of(cls, names: pd.DataFrame) -> NameCounts:
        """From the rows of feature_names.parquet."""
        named = names[names["name"] != UNNAMED]
        basis = named["sources"].str.split(",")
        return cls(
            len(names),
            {str(name): int(n) for name, n in named["collection"].value_counts().items()},
            {str(name): int(n) for name, n in basis.explode().value_counts().items() if name},
            int((basis.str.len() > 1).sum()) if len(named) else 0,
        )


def rests_on(layers: Sequence[LayerSummary]) -> str:
    """Which sources the features' names rest on, over all layers, and which sources were not counted twice; Markdown."""
    counts: list[NameCounts] = [each.parts["names"] for each in layers if each.parts.get("names") is not None]
    n_named = sum(sum(each.by_source.values()) for each in counts)
    if not n_named:
        return ""
    basis: dict[str, int] = {}
    for each in counts:
        for name, n in each.by_basis.items():
            basis[name] = basis.get(name, 0) + n
    ordered = sorted(basis, key=lambda name: (-basis[name], name))
    n_several = sum(each.n_several for each in counts)
    several = {0: "No name rests", 1: "One rests"}.get(n_several, f"{count(n_several)} rest")
    return (
        f"**What the names rest on.** {count(n_named)} of {count(sum(each.n_features for each in counts))} features "
        f"{'has' if n_named == 1 else 'have'} a name: the smallest of its strongest gene sets. The names rest on "
        f"{listing([f'{escape(title_of(layers, name))} ({count(basis[name])})' for name in ordered])}. {several} on two or more "
        "independent sources."
    )


def contained(layers: Sequence[LayerSummary]) -> str:
    """Which of the tested sources hold statements of others; Markdown, empty where none does."""
    known: list[dict[str, Any]] = next((found for each in layers if (found := each.parts.get("collections"))), [])
    holders: dict[tuple[str, ...], list[str]] = {}
    for each in known:
        if each.get("contains"):
            holders.setdefault(tuple(each["contains"]), []).append(escape(each.get("title") or each["name"]))
    holds = [
        f"{listing(names)} {'holds' if len(names) == 1 else 'hold'} statements of "
        f"{listing([escape(title_of(layers, name)) for name in contains])}"
        for contains, names in holders.items()
    ]
    return f"{'; '.join(holds)}: a match with several of them is counted once." if holds else ""
