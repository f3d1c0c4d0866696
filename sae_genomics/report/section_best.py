"""report.md, the best features of every layer."""

from __future__ import annotations

from typing import Any

from sae_genomics.report import inference, nothing_heldout
from sae_genomics.report.annotation_wording import headline
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import (
    NONE,
    count,
    decimal,
    details,
    escape,
    feature_link,
    percent,
    probability,
    table,
)
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording, a, first_upper


def best_features(contents: Contents) -> str:
    """The section, with its title; empty where no layer has features."""
    known = [each for each in contents.layers if each.best is not None and len(each.best)]
    if not known:
        return ""
    parts = [
        "## The best features",
        f"{_order(contents)} Such a list shows what there is, not how common it is: for that, see the {_elsewhere(contents)} above.",
    ]
    if contents.wide is None:
        items = contents.wording.nouns.items
        parts.append(
            contents.figure("embedding", f"Best features of the deepest layer on the embedding of the {items}")
        )
    for index, each in enumerate(known):
        assert each.best is not None
        said = [
            inference.line([each], "features", first_upper(contents.wording.nouns.labels)),
            inference.line([each], "terms", "Gene sets"),
            inference.line([each], "concepts", "Concepts"),
        ]
        body = "\n\n".join([_features_table(each, contents.dashboard, contents.wording), *filter(None, said)])
        title, text = f"Layer {each.layer}", _layer_words(each)
        parts.append(f"### {title}\n\n{text}\n\n{body}" if index == 0 else details(f"{title}: {text}", body))
    return "\n\n".join(part for part in parts if part)


def _elsewhere(contents: Contents) -> str:
    return (
        "shares against their nulls" if contents.wording.kind == "cells" else "numbers of concepts beside simpler means"
    )


def _order(contents: Contents) -> str:
    """In which order the features stand, and what the columns are."""
    fdr, nouns = contents.config.validation.fdr, contents.wording.nouns
    units = f"The {nouns.units} are those most specific to the feature"
    if contents.wording.kind == "cells":
        match, clear, first = (
            "match a gene set",
            f"q < {fdr:g}",
            "the clearest gene sets first, at most two features with the same one",
        )
        both = f"match both a gene set and {a(nouns.label)} (q < {fdr:g} each)"
    else:
        match, clear = "find a concept", f"per {nouns.token}, at q < {fdr:g}"
        first = "the clearest concepts first, at most two features with the same one"
        both = f"find a concept and match {a(nouns.label)} (q < {fdr:g} each)"
    if nothing_heldout.is_so(contents.prepared.plan or {}):
        return (
            f"First the features that {match} ({clear}), the clearest first, at most two features with the same one. "
            f"No {nouns.item} is held out, so no feature is tested against {nouns.labels}. {units}."
        )
    return f"First the features that {both}, then those that match one, {first}. {units}; AUROC and q are from held-out {nouns.items}."


def _layer_words(summary: LayerSummary) -> str:
    """How many features match something known in all, beside what chance gives."""
    if summary.annotation is not None:
        return headline(summary.layer, summary.annotation).split(": ", 1)[1]
    concepts = summary.parts.get("concepts")
    if concepts is not None:
        return concepts.headline(summary.layer).split(": ", 1)[1]
    n_features = count(summary.n_features)
    if summary.best is not None and "concept" in summary.best:
        return f"{n_features} features, not compared with concepts."
    return (
        f"{n_features} features, {'no gene set fits' if summary.nothing_tested else 'not yet compared with gene sets'}."
    )


def _features_table(summary: LayerSummary, dashboard: str, wording: Wording) -> str:
    best = summary.best
    assert best is not None
    by_concept, has_names = "concept" in best, "feature_name" in best
    rows = []
    for row in best.to_dict("records"):
        match = typed = NONE
        if row["known"]:
            match = _concept(row) if by_concept else _term(row)
        if row["typed"]:
            area, q_value = decimal(row["best_label_auroc"]), probability(row["best_label_q_value"])
            typed = f"{escape(row['best_label'])} ({area}, q = {q_value})"
        rows.append(
            (
                feature_link(dashboard, summary.layer, row["feature"]),
                *([escape(row["feature_name"])] if has_names else []),
                percent(row["firing_rate"]),
                ", ".join(escape(unit) for unit in row["units"]) or escape(row["top_unit"] or NONE),
                typed,
                match,
            )
        )
    nouns = wording.nouns
    last = f"Best concept (F1 per {nouns.token})" if by_concept else "Best gene set"
    header = (
        "Feature",
        *(["Name"] if has_names else []),
        "Fires in",
        f"Most specific {nouns.units}",
        f"Best {nouns.label} (AUROC)",
        last,
    )
    return table(header, rows, right=(0, 2 if has_names else 1))


def _term(row: dict[str, Any]) -> str:
    overlap = f"{count(row['n_overlap'])} of {count(row['n_term'])} genes, q = {probability(row['term_q_value'])}"
    return f"{escape(row['term'])} ({overlap})"


def _concept(row: dict[str, Any]) -> str:
    return f"{escape(row['name'] or row['concept'])} ({decimal(row['f1_residue'])}, q = {probability(row['concept_q_value'])})"
