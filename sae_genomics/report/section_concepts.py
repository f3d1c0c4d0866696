"""report.md, concepts: which annotated stretches features find, beside what simpler means find."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.report import concepts as of_concepts
from sae_genomics.report import groups, inference
from sae_genomics.report.concepts import FEATURE, Concepts, Found, label
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import (
    NONE,
    count,
    decimal,
    details,
    escape,
    feature_link,
    listing,
    probability,
    span,
    table,
)
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording, a, first_upper

MOST_LAYERS = 6  # that the opening names one by one
FIGURE = "concepts"


def verdict(layers: list[LayerSummary]) -> str:
    """In which layers features find more concepts than every simpler means. Plain text; empty without concepts."""
    tested = of_concepts.of(layers)
    if not tested:
        return ""
    others = [label(kind) for kind in tested[0][1].found if kind != FEATURE]
    above = [str(layer) for layer, found in tested if found.beats_all]
    if not others:
        return (
            f"Features find {span((each.found[FEATURE].n_concepts for _, each in tested), count)} concepts per layer."
        )
    if not above:
        where = "In the one layer here" if len(tested) == 1 else f"In none of the {len(tested)} layers"
        no = "features do not find" if len(tested) == 1 else "do features find"
        return f"{where} {no} more concepts than each of {listing(others)}."
    where = f"layer {above[0]}" if len(above) == 1 else f"layers {listing(above)}"
    text = f"Features find more concepts than {listing(others)} in {where}."
    rest = [str(layer) for layer, found in tested if not found.beats_all]
    return f"{text} They do not in {'layer' if len(rest) == 1 else 'layers'} {listing(rest)}." if rest else text


def opening(layers: list[LayerSummary]) -> str:
    """The finding: a verdict over layers, then one line per layer."""
    tested = of_concepts.of(layers)
    if not tested:
        return ""
    text = f"**Concepts.** {verdict(layers)}"
    criterion = tested[0][1].criterion
    if criterion:
        text += f" A concept counts as found by this rule: {escape(_clause(criterion))}."
    if len(tested) > MOST_LAYERS:
        kinds = tested[0][1].found
        told = [f"{label(kind)} {span(_numbers(tested, kind), count)}" for kind in kinds]
        return f"{text} Concepts found per layer: {listing(told)}."
    return "\n".join([text, *(f"  - {found.headline(layer)}" for layer, found in tested)])


def _clause(criterion: str) -> str:
    return criterion.strip().rstrip(".")


def _numbers(tested: list[tuple[int, Concepts]], kind: str) -> list[int]:
    return [each.found[kind].n_concepts for _, each in tested if kind in each.found]


def section(contents: Contents) -> str:
    """The section, with its title."""
    tested, nouns = of_concepts.of(contents.layers), contents.wording.nouns
    title = "## Features that find concepts"
    if not tested:
        if contents.prepared.spans is not None:
            return f"{title}\n\nNot tested yet, or no concept has enough {nouns.spans} to be tested."
        return (
            f"{title}\n\nNothing to test: the run has no annotated {nouns.spans}. Name a file of them in `data.spans`."
        )
    parts = [title, _method(contents, tested[0][1].criterion), _kinds(contents.wording), _counts(tested)]
    basis = inference.line(contents.layers, "concept_counts")
    parts += [basis, contents.figure(FIGURE, "Concepts found by features and by simpler means")]
    best = of_concepts.over_layers(contents.layers)
    if best is not None:
        parts += _best(contents, best)
    return "\n\n".join(part for part in parts if part)


def _method(contents: Contents, criterion: str) -> str:
    nouns, plan = contents.wording.nouns, contents.prepared.plan or {}
    together = (
        f" {first_upper(nouns.items)} of one group stay in one half, unless a concept is in too few groups for that."
    )
    kept = together if groups.is_so(plan) else ""
    return (
        f"A *concept* is one kind of annotated stretch of {a(nouns.item)}, such as the C2H2 zinc finger. Every place where it is annotated is "
        f"one *{nouns.span}*. A unit finds it where the unit's value is above a threshold. Unit and threshold were chosen on one half of the {nouns.items}; every score below is from the "
        f"other half.{kept} "
        + (f"A concept counts as found by this rule: {escape(_clause(criterion))}. " if criterion else "")
        + f"Two measures stand side by side and are never mixed. *Per {nouns.token}*: precision is the share of {nouns.tokens} above the "
        f"threshold that carry the concept, recall the share of the concept's {nouns.tokens} that are above it. *Per {nouns.span}*: precision "
        f"is the share of unbroken stretches above the threshold that touch the concept, recall the share of its annotated {nouns.spans} that "
        "are touched. F1 is the harmonic mean of precision and recall."
    )


def _kinds(wording: Wording) -> str:
    nouns = wording.nouns
    return (
        "The same was done with simpler means. *Raw neurons* are the layer's own, each with both signs. *Random directions* are directions "
        f"of the layer's space drawn at random. *Composition alone* knows which {nouns.units} stand there, *position alone* where in the "
        f"{nouns.item} it is. Features must be read against these. More units have more chances to find a concept."
    )


def _counts(tested: list[tuple[int, Concepts]]) -> str:
    kinds = list(dict.fromkeys(kind for _, each in tested for kind in each.found))
    rows = [
        (str(layer), count(each.found[FEATURE].n_tested), *(_found(each.found.get(kind)) for kind in kinds))
        for layer, each in tested
    ]
    header = ("Layer", "Concepts tested", *(f"Found by {label(kind)}" for kind in kinds))
    note = "In brackets: how many units find at least one concept, of how many."
    return f"{table(header, rows, right=range(len(header)))}\n\n{note}"


def _found(found: Found | None) -> str:
    if found is None:
        return NONE
    return f"{count(found.n_concepts)} ({count(found.n_units_with_concept)} of {count(found.n_units)})"


def _best(contents: Contents, best: pd.DataFrame) -> list[str]:
    """The best feature of each concept; each kind's F1; and every layer's own."""
    wording, basis = contents.wording, inference.line(contents.layers, "concept_baselines")
    features = best[best["kind"] == FEATURE]
    parts = [
        "### The best feature of each concept",
        f"Chosen over all layers. The concepts stand by F1 per {wording.nouns.token}.",
        _feature_table(features, contents.dashboard, wording),
        basis,
    ]
    for measure, noun in (("residue", wording.nouns.token), ("span", wording.nouns.span)):
        beside = _beside(best, measure)
        if beside:
            parts.append(details(f"The best unit of each kind, F1 per {noun}", f"{beside}\n\n{basis}"))
    for layer, each in of_concepts.of(contents.layers):
        own = each.best[each.best["kind"] == FEATURE].sort_values("f1_residue", ascending=False, kind="stable")
        if len(own):
            body = _feature_table(own.assign(layer=layer), contents.dashboard, wording)
            parts.append(details(f"Layer {layer}, every concept", f"{body}\n\n{basis}"))
    return parts


def _feature_table(features: pd.DataFrame, dashboard: str, wording: Wording) -> str:
    nouns = wording.nouns
    header = (
        "Concept", first_upper(nouns.spans), first_upper(nouns.items), "Feature", f"Precision per {nouns.token}", "Recall", "F1",
        f"Precision per {nouns.span}", "Recall", "F1", "q",
    )  # fmt: skip
    rows = [_feature_row(row, dashboard) for row in features.to_dict("records")]
    return table(header, rows, right=(1, 2, 4, 5, 6, 7, 8, 9, 10))


def _feature_row(row: dict[Any, Any], dashboard: str) -> tuple[str, ...]:
    names = ("precision_residue", "recall_residue", "f1_residue", "precision_span", "recall_span", "f1_span")
    return (
        escape(row["name"]),
        count(row["n_spans"]),
        count(row["n_proteins"]),
        f"{feature_link(dashboard, row['layer'], row['unit'])}, layer {int(row['layer'])}",
        *(decimal(row[name]) for name in names),
        probability(row["q_value"]),
    )


def _beside(best: pd.DataFrame, measure: str) -> str:
    """One row per concept: F1 of the best unit of each kind, of one measure. Empty where features stand alone."""
    kinds = [kind for kind in of_concepts.UNITS if (best["kind"] == kind).any()]
    if len(kinds) < 2:
        return ""
    wide = best.pivot(index="concept", columns="kind", values=f"f1_{measure}")
    names = best.drop_duplicates("concept").set_index("concept")["name"]
    rows = [(escape(name), *(decimal(wide.loc[key, kind]) for kind in kinds)) for key, name in names.items()]
    header = ("Concept", *(first_upper(label(kind)) for kind in kinds))
    return table(header, rows, right=range(1, len(header)))
