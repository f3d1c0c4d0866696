"""Figures of known biology: one per layer with all units beside chance, and one over layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sae_genomics.report.annotation import FEATURES, LABELS, Annotation, Null, Source
from sae_genomics.report.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, STYLE, layer_axis, new_figure
from sae_genomics.report.markdown import is_number
from sae_genomics.report.summary import LayerSummary

GOLD = "#B8860B"
UNIT_STYLE: dict[str, tuple[str, str]] = {
    FEATURES: (BLUE, "o"),
    "neurons": (GREY, "s"),
    "pca": (GREEN, "^"),
    "ica": (PURPLE, "v"),
    "untrained": (GOLD, "P"),
}
_Value = Callable[[Source], float]
_Chance = Callable[[Null], tuple[Any, ...]]
_PANELS: tuple[tuple[str, _Value, _Chance, bool], ...] = (
    ("Annotated units", lambda source: source.share, lambda null: null.share, True),
    ("Different gene sets", lambda source: source.n_terms, lambda null: null.n_terms, False),
    ("Gene sets per 100 units", lambda source: source.terms_per_100, lambda null: null.terms_per_100, False),
)
_NULLS = (
    ("names shuffled, same expression (mean, range)", "matched", ORANGE, "D", 0.17),
    ("names shuffled, any gene (mean, range)", "shuffled", "#9a9a9a", "d", 0.34),
)


@matplotlib.rc_context(STYLE)
def layer_annotation(layer: int, found: Annotation, fdr: float) -> Figure | None:
    """Share of annotated units, different gene sets, and gene sets per 100 units: a row per kind of units, beside both nulls."""
    sources = [source for source in found.sources if source.n_units]
    if not sources:
        return None
    figure, axes = new_figure(9.6, 1.75 + 0.52 * len(sources), 1, len(_PANELS))
    figure.set_layout_engine("constrained", wspace=0.05)
    rows = np.arange(len(sources))[::-1].astype(float)
    for axis, (title, value, chance, is_share) in zip(axes[0], _PANELS, strict=True):
        for row, source in zip(rows, sources, strict=True):
            _row(axis, row, source, value, chance)
        axis.set_title(title)
        axis.set_ylim(-0.65, len(sources) - 0.5)
        axis.set_yticks(rows, [f"{source.label} ({source.n_units:,})" for source in sources])
        axis.tick_params(axis="y", labelleft=axis is axes[0, 0], length=0)
        axis.grid(axis="y", visible=False)
        _from_zero(axis, sources, value, chance, is_share)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    figure.legend(kept.values(), kept.keys(), loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(f"Layer {layer}: gene sets at q < {fdr:g}", x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _row(axis: Axes, row: float, source: Source, value: _Value, chance: _Chance) -> None:
    colour, _ = UNIT_STYLE.get(source.units, (GREY, "s"))
    axis.barh(row, value(source), 0.24, color=colour, label="bar: as found" if source.units == FEATURES else None)
    for label, name, tint, marker, below in _NULLS:
        values = chance(getattr(source, name))
        if not values:
            continue
        mean = float(np.mean(values))
        ends = [[mean - min(values)], [max(values) - mean]]
        axis.errorbar(
            mean, row - below, xerr=ends, fmt=marker, color=tint, markersize=4, capsize=2.5, elinewidth=1.1, linewidth=1.1,
            label=label, clip_on=False,
        )  # fmt: skip


def _from_zero(axis: Axes, sources: list[Source], value: _Value, chance: _Chance, is_share: bool) -> None:
    """The axis from 0 to a little above everything in it."""
    nulls = [number for source in sources for null in (source.matched, source.shuffled) for number in chance(null)]
    top = max([value(source) for source in sources] + nulls)
    axis.set_xlim(0, max(1.12 * top, 0.02 if is_share else 1))
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=not is_share and top >= 4))
    if is_share:
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0 if top > 0.04 else 1))


@matplotlib.rc_context(STYLE)
def annotation(layers: list[LayerSummary], fdr: float) -> Figure | None:
    """Share of annotated units and different gene sets over layers; chance (same expression) for the features."""
    shown = [(each.layer, each.annotation) for each in layers if each.annotation is not None]
    if len(shown) < 2:
        return None
    figure, axes = new_figure(9.2, 3.9, 1, 2)
    numbers = [layer for layer, _ in shown]
    kinds = list(dict.fromkeys(source.units for _, found in shown for source in found.sources))
    for axis, (title, value, chance, is_share) in zip(axes[0], _PANELS[:2], strict=True):
        for kind in reversed(kinds):  # the features last, so that they lie on top
            _line(axis, kind, shown, value)
        tops = _chance_line(axis, shown, chance)
        axis.set_title(f"{title}, q < {fdr:g}")
        layer_axis(axis, numbers)
        tops += [value(source) for _, found in shown for source in found.sources]
        top = max([*(number for number in tops if is_number(number)), 0.02 if is_share else 1]) * 1.12
        axis.set_ylim(-0.03 * top, top)
        if is_share:
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _line(axis: Axes, kind: str, shown: list[tuple[int, Annotation]], value: _Value) -> None:
    points = [(layer, value(source)) for layer, found in shown for source in found.sources if source.units == kind]
    colour, marker = UNIT_STYLE.get(kind, (GREY, "s"))
    style = "-" if kind == FEATURES else "--"
    axis.plot(*zip(*points, strict=True), f"{marker}{style}", color=colour, label=LABELS.get(kind, kind))


def _chance_line(axis: Axes, shown: list[tuple[int, Annotation]], chance: _Chance) -> list[float]:
    known = [(layer, chance(found.features.matched)) for layer, found in shown]
    known = [(layer, values) for layer, values in known if values]
    if not known:
        return []
    mean = np.array([np.mean(values) for _, values in known])
    ends = np.vstack([mean - [min(values) for _, values in known], [max(values) for _, values in known] - mean])
    label = "features, names shuffled, same expression (mean, range)"
    axis.errorbar([layer for layer, _ in known], mean, yerr=ends, fmt="D:", color=ORANGE, capsize=4, label=label)
    return [float(max(values)) for _, values in known]
