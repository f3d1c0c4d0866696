"""Whether features beat the baselines, by how much, and where not, in plain sentences.

Two measures: different gene sets found, and the share of units that match one. Differences are named as pairs of numbers, never as
ratios: a baseline that finds one gene set would make any ratio large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sae_genomics.report.annotation import MOST_LAYERS, Annotation, Source
from sae_genomics.report.markdown import count, decimal, listing, percent, span

MORE_UNITS = 1.5  # from so many times as many features as units of the baseline, the count per 100 units is told too
Layers = Sequence[tuple[int, Annotation]]
Value = Callable[[Source], float]


@dataclass(frozen=True)
class Measure:
    """What units are compared by."""

    value: Value
    show: Callable[[float], str]
    leads: str
    """what the features do where they are ahead, before `than every baseline`"""


SETS = Measure(lambda each: each.n_terms, count, "find more different gene sets")
SHARE = Measure(lambda each: each.share, percent, "match a gene set more often")
PER_100 = Measure(
    lambda each: each.terms_per_100,
    lambda value: decimal(value, 1),
    "find more different gene sets per 100 units",
)


@dataclass(frozen=True)
class Rival:
    """The features of a layer beside the baseline with the highest value."""

    layer: int
    features: float
    best: float
    label: str

    @property
    def is_behind(self) -> bool:
        return self.features <= self.best

    def pair(self, show: Callable[[float], str]) -> str:
        """`layer 2 (20, independent components 13)`"""
        return f"layer {self.layer} ({show(self.features)}, {self.label} {show(self.best)})"


def rivals(tested: Layers, value: Value) -> list[Rival]:
    """One per layer that has features and a baseline to compare."""
    found = []
    for layer, each in tested:
        others = [source for source in each.baselines if source.n_units]
        if each.features.n_units and others:
            best = max(others, key=value)
            found.append(Rival(layer, value(each.features), value(best), best.label))
    return found


def paragraph(tested: Layers) -> str:
    """One sentence or two per measure; plain text, empty without a baseline."""
    measures = [SETS, SHARE, *([PER_100] if _many_features(tested) else [])]
    return " ".join(filter(None, (sentence(tested, measure) for measure in measures)))


def _many_features(tested: Layers) -> bool:
    """Whether features are so many more than some baseline's units that they find more sets for that alone."""
    return any(
        each.features.n_units > MORE_UNITS * source.n_units
        for _, each in tested
        for source in each.baselines
        if source.n_units
    )


def sentence(tested: Layers, measure: Measure) -> str:
    """`The features find more different gene sets than every baseline in layer 0 (12, raw neurons 6). Not in layer 1 (...).`"""
    found = rivals(tested, measure.value)
    if not found:
        return ""
    ahead, behind = [each for each in found if not each.is_behind], [each for each in found if each.is_behind]
    if not ahead:
        none = "In the one layer here the features do not" if len(found) == 1 else "In no layer do the features"
        return f"{none} {measure.leads} than every baseline: {_among(behind, len(found), measure)}."
    text = f"The features {measure.leads} than every baseline in {_among(ahead, len(found), measure)}."
    return f"{text} Not in {_among(behind, len(found), measure)}." if behind else text


def _among(found: list[Rival], n_layers: int, measure: Measure) -> str:
    """Each layer with both numbers; of many layers the ranges."""
    if len(found) <= MOST_LAYERS:
        return listing([each.pair(measure.show) for each in found])
    features, best = (span((getattr(each, name) for each in found), measure.show) for name in ("features", "best"))
    some = f"all {n_layers}" if len(found) == n_layers else f"{len(found)} of {n_layers}"
    return f"{some} layers (features {features}, the best baseline {best})"


def by_source(tested: Mapping[str, Layers], label: Callable[[str], str]) -> str:
    """Per source of gene sets, in which layers the features find more of its sets than every baseline; plain text.

    tested: collection -> its layers. label: collection -> its title.
    """
    told = []
    for name, layers in tested.items():
        found = rivals(layers, SETS.value)
        behind = [each.layer for each in found if each.is_behind]
        if found:
            told.append(f"{label(name)}: {_in_layers(len(found), behind)}")
    if not told:
        return ""
    return f"By source, the features find more different gene sets than every baseline: {'; '.join(told)}."


def _in_layers(n_layers: int, behind: list[int]) -> str:
    if not behind:
        return "in its one layer" if n_layers == 1 else f"in all {n_layers} layers"
    if len(behind) == n_layers:
        return "in no layer"
    named = f", not in {'layer' if len(behind) == 1 else 'layers'} {listing([str(layer) for layer in behind])}"
    return f"in {n_layers - len(behind)} of {n_layers} layers{named if len(behind) <= MOST_LAYERS else ''}"
