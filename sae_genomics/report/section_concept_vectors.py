"""report.md, concept vectors: what each layer knows of concepts, beside chance, composition and confounds, and what vectors are good for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sae_genomics.commands import script_command
from sae_genomics.concepts.section import ConceptsConfig
from sae_genomics.report import concept_vectors as of_vectors
from sae_genomics.report import inference
from sae_genomics.report.concept_vectors import BEYOND, CHANCE_ALONE, NOT_KNOWN, UNTESTED
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import (
    NONE,
    count,
    decimal,
    details,
    either,
    escape,
    feature_link,
    is_number,
    listing,
    percent,
    probability,
    table,
)
from sae_genomics.report.wording import Wording, a, first_upper

FIGURE, WINDOWS = "concept_vectors", "concept_windows"
SHOWN = 40  # concepts in a table that is not folded
NAMED = 6  # concepts that a sentence names
OTHER_COLUMN = "value of a column"  # the kind of a label that is not the run's own one
TOLD = 3  # confounds that the opening tells
NOTEWORTHY = 0.7  # AUROC of a confound, from which on it is told in the opening
PICTURES = 4
_SAY = {BEYOND: "beyond composition", CHANCE_ALONE: "beyond chance alone", NOT_KNOWN: "no", UNTESTED: "not tested"}


def finding(contents: Contents) -> str:
    """The opening's point; empty without concept vectors."""
    best = of_vectors.best(contents.layers, contents.config.validation.fdr)
    return "" if best.empty else f"**What layers know.** {verdict(contents, best)}"


def verdict(contents: Contents, best: pd.DataFrame) -> str:
    """How many concepts are known beyond chance and beyond composition, and which are not. Plain sentences."""
    layers = of_vectors.of(contents.layers)
    tested = best[best["verdict"] != UNTESTED]
    where = "the one layer here" if len(layers) == 1 else f"at least one of {len(layers)} layers"
    beyond = tested[tested["verdict"] == BEYOND]
    text = f"A direction in {where} tells {count(len(beyond))} of {count(len(tested))} concepts from the rest, beyond chance and beyond composition"
    text += f": {_named(beyond)}." if len(beyond) else "."
    composed, unknown = (tested[tested["verdict"] == kind] for kind in (CHANCE_ALONE, NOT_KNOWN))
    if len(composed):
        are, say = ("is", "its vector says") if len(composed) == 1 else ("are", "their vectors say")
        text += f" {_named(composed)} {are} told beyond chance, but not clearly better than by composition alone; {say} nothing about the model."
    if len(unknown):
        text += f" {_named(unknown)} {'is' if len(unknown) == 1 else 'are'} not told better than by chance."
    if len(layers) > 1 and len(beyond):
        counts = [
            (layer, int((of_vectors.verdicts(each.vectors, contents.config.validation.fdr) == BEYOND).sum()))
            for layer, each in layers
        ]
        most = max(n for _, n in counts)
        at = [str(layer) for layer, n in counts if n == most]
        text += f" The most in one layer {'is' if most == 1 else 'are'} {count(most)}, in {'layer' if len(at) == 1 else 'layers'} {listing(at)}."
    return f"{text} {confounds(tested, contents.wording)}".strip()


def confounds(best: pd.DataFrame, wording: Wording) -> str:
    """What else tells positives from negatives; empty where nothing much does."""
    strong = best[best["auroc_confound"].astype(float).fillna(0.5) >= NOTEWORTHY]
    if strong.empty:
        return ""
    shown = strong.sort_values("auroc_confound", ascending=False, kind="stable").head(TOLD)
    examples = [
        f"{escape(row['name'])} ({_noun(row['strongest_confound'], wording)}: AUROC {decimal(row['auroc_confound'])}"
        + (
            f", {decimal(row['auroc_matched'])} left after matching)"
            if is_number(row["auroc_matched"])
            else ", nothing left to match)"
        )
        for row in shown.to_dict("records")
    ]
    more = len(strong) - len(shown)
    return f"Beware of confounds: a single property tells {listing([*examples, *([f'{more} more'] if more else [])])}."


def _named(rows: pd.DataFrame) -> str:
    names = [escape(name) for name in rows["name"].head(NAMED)]
    more = len(rows) - len(names)
    return listing([*names, *([f"{more} more"] if more else [])])


def section(contents: Contents) -> str:
    """The section, with its title; empty without the stage."""
    known = of_vectors.of(contents.layers)
    title = "## What layers know: concept vectors"
    if not known:
        if any(of_vectors.PART in each.parts for each in contents.layers):
            return f"{title}\n\nNothing to test: no concept has enough {contents.wording.nouns.items}. `concepts.json` in each layer's folder says why."
        return ""
    best = of_vectors.best(contents.layers, contents.config.validation.fdr)
    parts = [
        title,
        verdict(contents, best),
        _method(contents.wording, kinds(best, contents.config.concepts).unique().tolist()),
        contents.figure(FIGURE, "AUROC of concept vectors, beside composition and chance"),
        _main(contents, best),
        _thresholds(contents, known, best),
        _where(contents, known, best),
        _features(contents, known, best),
        _derivatives(contents, known, best),
        "All numbers of all layers: `concept_*.parquet`, `concepts.safetensors` and `thresholds.json` in each layer's folder.",
    ]
    return "\n\n".join(part for part in parts if part)


def _method(wording: Wording, kinds: Sequence[str]) -> str:
    nouns = wording.nouns
    said = {
        "label": a(nouns.label), OTHER_COLUMN: "a value of another column", "span": f"a kind of annotated {nouns.span}", "gene_set": f"a set of {nouns.units}", "examples": "what a file of examples names",
    }  # fmt: skip
    what = either([text for kind, text in said.items() if kind in kinds])
    return (
        f"A *concept* is {what}. Its *vector* is the direction of the layer's activations that best tells what has the concept from what has it not: a regularised logistic "
        f"regression on training {nouns.items}. AUROC is measured on held-out {nouns.items}: 0.5 is a coin, 1 is never wrong. The same was fitted to shuffled annotations and to random "
        f"concepts of the same size (*by chance*), and to composition alone: which {nouns.units} there are, and how many {nouns.tokens}. The model may know a concept that composition "
        "tells as well, but its vector is no evidence of it. q counts all concepts and layers."
    )


def _folded(
    title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: range | tuple[int, ...]
) -> str:
    """A table; what is beyond SHOWN rows is folded."""
    shown = table(header, rows[:SHOWN], right=right)
    rest = rows[SHOWN:]
    return (
        shown if not rest else f"{shown}\n\n{details(f'{title}: {len(rest)} more', table(header, rest, right=right))}"
    )


def _main(contents: Contents, best: pd.DataFrame) -> str:
    header = (
        "Concept", "Kind", "Layer", "With it", "AUROC (95 %)", "by chance", "composition", "position", "AUPRC",
        "prevalence", "q", "Strongest confound", "matched for it", "Known",
    )  # fmt: skip
    shown = best.assign(kind=kinds(best, contents.config.concepts))
    rows = [_main_row(row, contents.wording) for row in shown.to_dict("records")]
    left = [
        f"{escape(row['name'])}: {escape(row['untested'])}"
        for row in best.to_dict("records")
        if row["verdict"] == UNTESTED and row["untested"]
    ]
    nouns = contents.wording.nouns
    sets = "gene_set" in best["kind"].to_numpy()
    of_sets = f"; of a set of {nouns.units}, how many it has" if sets else ""
    parts = [
        f"Each concept in its best layer. *With it*: how many {nouns.items} have the concept{of_sets}.",
        _folded("Concepts", header, rows, range(2, 11)),
        inference.line(contents.layers, "concept_vectors"),
        details(f"{len(left)} concepts that were not tested", "\n".join(f"- {text}" for text in left)) if left else "",
    ]
    return "\n\n".join(part for part in parts if part)


def kinds(best: pd.DataFrame, settings: ConceptsConfig) -> pd.Series:
    """The kind of each concept; values of `label_columns` and of the table `labels`, named `column: value`, are a kind of their own."""
    named = best["name"].astype(str)
    column = named.str.contains(": ", regex=False) & (settings.labels is not None)
    column |= named.str.startswith(tuple(f"{each}: " for each in settings.label_columns))
    return best["kind"].mask((best["kind"] == "label") & column, OTHER_COLUMN)


def _main_row(row: dict[Any, Any], wording: Wording) -> tuple[str, ...]:
    chance = [value for value in (row["null_shuffled"], row["null_random"]) if is_number(value)]
    confound = (
        f"{_noun(row['strongest_confound'], wording)} {decimal(row['auroc_confound'])}"
        if is_number(row["auroc_confound"])
        else NONE
    )
    return (
        escape(row["name"]), _noun(row["kind"], wording), str(int(row["layer"])), count(row["n_items"]), _interval(row, "auroc"),
        decimal(max(chance)) if chance else NONE, decimal(row["auroc_composition"]), decimal(row["auroc_position"]), decimal(row["auprc"]),
        decimal(row["prevalence"]), probability(row["q_value"]), confound, decimal(row["auroc_matched"]), _SAY[row["verdict"]],
    )  # fmt: skip


def _noun(text: Any, wording: Wording) -> str:
    """The kind of a concept, or a confound, in the data's nouns."""
    nouns = wording.nouns
    known = {"label": nouns.label, "span": nouns.span, "group": nouns.group}
    return escape(known.get(str(text), str(text).replace("_", " ")))


def _interval(row: dict[Any, Any], name: str, places: int = 2) -> str:
    value = decimal(row[name], places)
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return (
        f"{value} ({decimal(low, places)} to {decimal(high, places)})" if is_number(low) and is_number(high) else value
    )


def _thresholds(contents: Contents, known: list[tuple[int, of_vectors.LayerConcepts]], best: pd.DataFrame) -> str:
    nouns = contents.wording.nouns
    entries = {(layer, each["concept"]): each for layer, one in known for each in one.thresholds.get("concepts", [])}
    rows = []
    for row in best.to_dict("records"):
        entry = entries.get((row["layer"], row["concept"]))
        if entry is None:
            continue
        at = entry["thresholds"]["f1_max"]
        rows.append((
            escape(row["name"]), str(int(row["layer"])), decimal(at["threshold"], 3), _three(at["precision"]), _three(at["recall"]),
            _three(at["f1"]), f"{count(entry['n_test_positive'])} of {count(entry['n_test'])}{f' {nouns.tokens}' if entry['score'] == 'token' else ''}",
            count(entry["n_test_groups"]),
        ))  # fmt: skip
    if not rows:
        return ""
    header = (
        "Concept",
        "Layer",
        "Threshold",
        "Precision (95 %)",
        "Recall (95 %)",
        "F1 (95 %)",
        f"{first_upper(nouns.items)} with it",
        "Groups",
    )
    text = (
        f"The threshold of the largest F1 was chosen on one half of the held-out {nouns.items} and measured on the other half. Two more thresholds of each concept are in "
        f"`thresholds.json`. `{script_command('detect_concepts.py', contents.run, '--data FILE --out detected.tsv')}` uses them on new {nouns.items}. "
        "Intervals are Wilson's at the number of observations that the groups are worth; none can be given for one group."
    )
    if any(entry["score"] == "token" for entry in entries.values()):
        text += (
            f" Thresholds of a set of {nouns.units} are about {nouns.tokens}: those of held-out members against those of matched others, chosen on one half of these "
            f"{nouns.units} and measured on the other half, in other {nouns.items}. A group is one of these {nouns.units} there."
        )
    return f"### Finding concepts in new {nouns.items}\n\n{text}\n\n{_folded('Thresholds', header, rows, range(1, 8))}"


def _three(values: list[float | None]) -> str:
    value, low, high = values
    return f"{decimal(value)} ({decimal(low)} to {decimal(high)})" if is_number(low) else decimal(value)


def _where(contents: Contents, known: list[tuple[int, of_vectors.LayerConcepts]], best: pd.DataFrame) -> str:
    nouns = contents.wording.nouns
    found = of_vectors.beside(known, best, "localisation")
    title = f"### Where in {a(nouns.item)}"
    if found.empty:
        note = next(
            (each.notes["concept_localisation"] for _, each in known if "concept_localisation" in each.notes), ""
        )
        return f"{title}\n\n{escape(note)}" if note else ""
    header = (
        "Concept", "Layer", first_upper(nouns.items), "Window", "IoU (95 %)", "ceiling", "random windows", "q", "Pointing hits", "AUPRC", "prevalence",
    )  # fmt: skip
    rows = [
        (
            escape(row["name"]), str(int(row["layer"])), count(row["n_items"]), count(row["window"]), _interval(row, "iou"), decimal(row["iou_ceiling"]),
            decimal(row["iou_random"]), probability(row["q_value"]), _interval(row, "hits"), _interval(row, "auprc"), decimal(row["prevalence"]),
        )
        for row in found.to_dict("records")
    ]  # fmt: skip
    text = (
        f"In each held-out {nouns.item} as many windows are placed as it has annotated {nouns.spans}, where the mean score is highest. IoU is what windows and {nouns.spans} share, of "
        f"what either covers. The *ceiling* is what windows of that length reach when they are placed on the {nouns.spans} themselves. A *pointing hit* is {a(nouns.item)} whose strongest "
        f"{nouns.token} lies in {a(nouns.span)}; *prevalence* is what hits and AUPRC are by chance."
    )
    pictures = [
        contents.figure(name, f"Best, worst and random examples of a concept: {name}")
        for name in sorted(contents.figures)
        if name.startswith(WINDOWS)
    ]
    shown, more = pictures[:1], pictures[1:]
    return "\n\n".join(
        part
        for part in (
            title, text, _folded("Concepts", header, rows, range(1, 11)), inference.line(contents.layers, "concept_localisation"), *shown,
            details(f"{len(more)} more concepts in pictures", "\n\n".join(more)) if more else "",
        )
        if part
    )  # fmt: skip


def _features(contents: Contents, known: list[tuple[int, of_vectors.LayerConcepts]], best: pd.DataFrame) -> str:
    found = of_vectors.beside(known, best, "features")
    if found.empty:
        return ""
    rows, uncarried = [], []
    for _, group in found.groupby("concept", sort=False):
        first, taken = group.iloc[0], group[group["feature"].notna()]
        last = group.iloc[-1]
        if not bool(first["carried"]):
            uncarried.append(escape(first["name"]))
        names = [
            f"{feature_link(contents.dashboard, first['layer'], row['feature'])} ({decimal(row['weight'])})"
            for row in taken.to_dict("records")
        ]
        rows.append((
            escape(first["name"]), str(int(first["layer"])), ", ".join(names) or NONE, percent(first["share"]), percent(last["share"]),
            f"{percent(first['share_random'])}, {percent(last['share_random'])}", f"{percent(first['share_covariance'])}, {percent(last['share_covariance'])}",
            f"{percent(first['share_chance'])}, {percent(last['share_chance'])}" if is_number(first.get("share_chance")) else NONE,
            decimal(first["p_value"]), "yes" if bool(first["carried"]) else "no",
        ))  # fmt: skip
    header = (
        "Concept",
        "Layer",
        "Features (weight)",
        "One explains",
        "All",
        "random directions",
        "with the activations' covariance",
        "concepts of chance",
        "p",
        "Carried",
    )
    none = (
        f"No set of features carries {listing([*uncarried[:NAMED], *([f'{len(uncarried) - NAMED} more'] if len(uncarried) > NAMED else [])])} better than it would carry a random one."
        if uncarried
        else "Features carry every concept better than a random one."
    )
    text = (
        "What activations do when a vector's score rises (the vector's pattern) is written as a sum of decoder directions with weights of at least 0, one feature after the other. The share of the pattern's squared length that the sum explains stands "
        f"beside what the same procedure explains of random directions, and of vectors fitted to shuffled labels and random concepts (*concepts of chance*), for one feature and for all of them. p asks of all numbers of features at once. {none}"
    )
    return "\n\n".join(
        (
            "### Features that carry concepts",
            text,
            _folded("Concepts", header, rows, (1, 3, 4, 5, 6, 7, 8)),
            inference.line(contents.layers, "concept_features"),
        )
    )


def _derivatives(contents: Contents, known: list[tuple[int, of_vectors.LayerConcepts]], best: pd.DataFrame) -> str:
    nouns = contents.wording.nouns
    found = of_vectors.beside(known, best, "tcav")
    title = "### Does the model use them"
    if found.empty:
        note = next((each.notes["concept_tcav"] for _, each in known if "concept_tcav" in each.notes), "")
        return f"{title}\n\n{escape(note)}" if note else ""
    asked = {
        "markers": f"the predicted values of the concept's marker {nouns.units}", "span": f"the log-probability of hidden {nouns.tokens} of the {nouns.span}",
        "gene set": f"the predicted values of the set's {nouns.units}", "hidden tokens": f"the log-probability of hidden {nouns.tokens}",
    }  # fmt: skip
    rows = [
        (
            escape(row["name"]), str(int(row["layer"])), asked.get(row["target"], escape(row["target"])), count(row["n_items"]), percent(row["share_positive"]),
            f"{percent(row['share_random_low'])} to {percent(row['share_random_high'])}", _interval(row, "derivative", 4),
            *(f"{decimal(row[f'derivative_{null}_low'], 4)} to {decimal(row[f'derivative_{null}_high'], 4)}" for null in ("random", "shuffled")),
            probability(row["p_directions"]), probability(row["p_shuffled"]), probability(row["p_random"]), probability(row["q_value"]),
        )
        for row in found.to_dict("records")
    ]  # fmt: skip
    header = (
        "Concept", "Layer", "Prediction", first_upper(nouns.items), "Rises in", "random (90 %)", "Derivative (95 %)", "random (95 %)", "shuffled labels (95 %)", "p, directions", "p, shuffled", "p, random concepts", "q",
    )  # fmt: skip
    text = (
        f"A small step along the vector is added at the concept's {nouns.tokens} of held-out {nouns.items} that have it. The derivative says how fast the prediction for them changes "
        "(TCAV). The prediction is of what was hidden from the model. Random directions change predictions too, and so do vectors fitted to shuffled labels and to random concepts, so they "
        f"stand beside each number, on the same {nouns.items}. q is of the largest p, over all concepts and layers. This is a first-order statement: stage causal makes real edits."
    )
    return "\n\n".join(
        (
            title,
            text,
            _folded("Concepts", header, rows, (1, *range(3, 13))),
            inference.line(contents.layers, "concept_tcav"),
        )
    )


def caveat(contents: Contents) -> str:
    """A sentence on how sure one can be; empty without concept vectors."""
    if not of_vectors.of(contents.layers):
        return ""
    return "Of each concept's vector the best of all layers is shown, and q counts all of them; a vector that tells a concept shows that the layer holds it, not that the model uses it."
