"""What is above chance and by how much, in plain sentences: the first thing that report and dashboard say."""

from __future__ import annotations

from sae_genomics.report import comparison
from sae_genomics.report.annotation import MOST_LAYERS, Annotation, Source, mean
from sae_genomics.report.markdown import count, decimal, escape, listing, percent, span
from sae_genomics.report.summary import LayerSummary

SAME = "names shuffled among genes of the same expression"


def opening(layers: list[LayerSummary], fdr: float) -> str:
    """The report's first finding: a verdict over layers, then one line per layer."""
    tested = [(each.layer, each.annotation) for each in layers if each.annotation is not None]
    if not tested:
        nothing = next((each.nothing_tested for each in layers if each.nothing_tested), None)
        return f"**Known biology.** There was nothing to test: {escape(nothing)}." if nothing else ""
    said = (verdict(layers), comparison.sentence(tested, comparison.SETS), f"A match is a gene set at q < {fdr:g}.")
    text = f"**Known biology.** {' '.join(filter(None, said))}"
    if len(tested) > MOST_LAYERS:
        return f"{text} {_over_layers([found for _, found in tested])}"
    lines = [f"  - {headline(layer, found)} {beside(found)}".rstrip() for layer, found in tested]
    return "\n".join([text, *lines])


def verdict(layers: list[LayerSummary]) -> str:
    """In which layers more features match a gene set than expression alone explains. Plain text; empty without a test."""
    tested = [(each.layer, each.annotation) for each in layers if each.annotation is not None]
    if not tested:
        return ""
    above = [layer for layer, found in tested if found.features.above_chance]
    n_shuffles = max(found.n_shuffles for _, found in tested)
    chance = f"any of {n_shuffles} shuffles of gene names among genes of the same expression"
    if not above:
        where = "In the one layer here" if len(tested) == 1 else f"In none of the {len(tested)} layers"
        no = "no more features match" if len(tested) == 1 else "do more features match"
        return f"{where} {no} a known gene set than in {chance}: nothing is above chance."
    where = f"layer {above[0]}" if len(above) == 1 else f"layers {_numbers(above)}"
    rest = [layer for layer, _ in tested if layer not in above]
    text = f"Above chance in {where}: more features match a known gene set than in {chance}."
    if rest:
        text += f" Not above chance in {'layer' if len(rest) == 1 else 'layers'} {_numbers(rest)}."
    return text


def _numbers(layers: list[int]) -> str:
    return listing([str(layer) for layer in layers])


def headline(layer: int, found: Annotation) -> str:
    """`Layer 2: 22 of 120 features (18.3 %) match a gene set; with names shuffled ... 0.3 (0.2 %).` Plain text."""
    features = found.features
    if not features.n_units:
        return f"Layer {layer}: no feature has a gene that could be tested."
    match = "matches" if features.n_annotated == 1 else "match"
    share = f"{count(features.n_annotated)} of {count(features.n_units)} features ({percent(features.share)})"
    return f"Layer {layer}: {share} {match} a gene set; with {SAME} {by_chance(features)}."


def by_chance(source: Source) -> str:
    """`0.3 (0.2 %) on average, at most 2`."""
    null = source.matched
    if not null.n_annotated:
        return "not measured"
    if not max(null.n_annotated):
        return f"none in {len(null.n_annotated)} shuffles"
    return f"{decimal(mean(null.n_annotated), 1)} ({percent(mean(null.share))}) on average, at most {count(max(null.n_annotated))}"


def beside(found: Annotation) -> str:
    """How many different gene sets the features find, and the baselines. Plain text; empty without units to test."""
    features = found.features
    if not features.n_units:
        return ""
    sets = "gene set" if features.n_terms == 1 else "different gene sets"
    text = f"The features find {count(features.n_terms)} {sets}"
    others = [f"{each.label} {count(each.n_terms)}" for each in found.baselines if each.n_units]
    return f"{text}; {listing(others)}." if others else f"{text}."


def _over_layers(tested: list[Annotation]) -> str:
    """The ranges over many layers, for which a line per layer would be too much."""
    features = [found.features for found in tested]
    text = (
        f"Per layer {span((each.share for each in features), percent)} of the features match a gene set; with {SAME} "
        f"{span((mean(each.matched.share) for each in features), percent)}. "
        f"They find {_sets([each.n_terms for each in features])} different gene sets per layer"
    )
    kinds = dict.fromkeys(each.units for found in tested for each in found.baselines)
    of = {kind: [each for found in tested for each in found.baselines if each.units == kind] for kind in kinds}
    others = [f"{each[0].label} {_sets([one.n_terms for one in each])}" for each in of.values()]
    return f"{text}; {listing(others)}." if others else f"{text}."


def _sets(numbers: list[int]) -> str:
    return span(numbers, count)


def by_chance_often(layers: list[LayerSummary]) -> str:
    """How often a layer beats all shuffles by chance; empty without a test."""
    repeats = max((each.annotation.n_shuffles for each in layers if each.annotation is not None), default=0)
    if not repeats:
        return ""
    if repeats == 1:
        return "The shuffled-gene null was drawn only once: set `validation.shuffles` to 20 or more."
    return f"Beating all {repeats} shuffles happens by chance once in {repeats + 1} times per layer."
