"""The figure of known biology by source: annotated share and different gene sets of features and baselines, beside chance."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sae_genomics.report.annotation import FEATURES, LABELS, Annotation
from sae_genomics.report.comparison import Value
from sae_genomics.report.figures import GREY, ORANGE, STYLE, layer_axis, new_figure
from sae_genomics.report.figures_annotation import UNIT_STYLE
from sae_genomics.report.markdown import is_number

MOST_SOURCES = 12
SPREAD = 0.5  # of the layers' distance, over which the kinds of units stand side by side
_MEASURES: tuple[tuple[str, Value, str], ...] = (
    ("Annotated units", lambda each: each.share, "share"),
    ("Different gene sets", lambda each: each.n_terms, "n_terms"),
)


@matplotlib.rc_context(STYLE)
def by_source(sources: dict[str, list[tuple[int, Annotation]]], titles: dict[str, str]) -> Figure | None:
    """One row of panels per source that any unit matches, at most MOST_SOURCES, those with the most gene sets of features first."""
    shown = [name for name, found in sources.items() if any(each.n_terms for _, said in found for each in said.sources)]
    shown = sorted(shown, key=lambda name: -sum(said.features.n_terms for _, said in sources[name]))[:MOST_SOURCES]
    if not shown:
        return None
    figure, axes = new_figure(9.2, 0.9 + 1.75 * len(shown), len(shown), len(_MEASURES))
    for row, name in zip(axes, shown, strict=True):
        for axis, (title, value, chance) in zip(row, _MEASURES, strict=True):
            _panel(axis, sources[name], value, chance)
            axis.set_title(f"{titles.get(name, name)}: {title[0].lower()}{title[1:]}")
            if chance == "share":
                axis.yaxis.set_major_formatter(PercentFormatter(1))
            else:
                axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    handles = {label: each for axis in axes.flat for each, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _panel(axis: Axes, found: list[tuple[int, Annotation]], value: Value, chance: str) -> None:
    layers = [layer for layer, _ in found]
    step = min(np.diff(sorted(layers)), default=1)
    kinds = [FEATURES, *dict.fromkeys(each.units for _, said in found for each in said.baselines)]
    shifts = dict(zip([*kinds, ""], np.linspace(-0.5, 0.5, len(kinds) + 1) * SPREAD * step, strict=True))
    top = 0.0
    for kind in kinds:
        points = [
            (layer + shifts[kind], value(each)) for layer, said in found for each in said.sources if each.units == kind
        ]
        points = [point for point in points if is_number(point[1])]
        colour, marker = UNIT_STYLE.get(kind, (GREY, "s"))
        if points:
            axis.plot(*zip(*points, strict=True), marker, color=colour, label=LABELS.get(kind, kind), clip_on=False)
        top = max([top, *(height for _, height in points)])
    for layer, said in found:
        values = getattr(said.features.matched, chance)
        if values:
            middle = float(np.mean(values))
            ends = [[middle - min(values)], [max(values) - middle]]
            label = "features, names shuffled, same expression (mean, range)"
            axis.errorbar(
                layer + shifts[""], middle, yerr=ends, fmt="D", color=ORANGE, markersize=4, capsize=2.5, label=label
            )
            top = max(top, *values)
    layer_axis(axis, layers)
    axis.set_xlim(min(layers) - 0.6 * step, max(layers) + 0.6 * step)
    top = 1.12 * max(top, 0.02 if chance == "share" else 1)
    axis.set_ylim(-0.03 * top, top)
