"""The figure of concepts: how many features find, by layer, beside simpler means."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sae_genomics.report import concepts
from sae_genomics.report.concepts import label
from sae_genomics.report.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, STYLE, layer_axis, new_figure
from sae_genomics.report.summary import LayerSummary

_KIND_STYLE = {
    "feature": (BLUE, "o", "-"),
    "neuron": (GREY, "s", "--"),
    "random": (GREEN, "^", "--"),
    "composition": (ORANGE, "D", "--"),
    "position": (PURPLE, "v", "--"),
}


@matplotlib.rc_context(STYLE)
def found(layers: list[LayerSummary]) -> Figure | None:
    """Concepts found per layer, one line per kind of units; bars where there is one layer."""
    tested = concepts.of(layers)
    if not tested:
        return None
    kinds = list(dict.fromkeys(kind for _, each in tested for kind in each.found))
    n_tested = max(each.found[concepts.FEATURE].n_tested for _, each in tested)
    if len(tested) == 1:
        return _bars(tested[0], kinds, n_tested)
    figure, axes = new_figure(6.8, 3.8)
    axis = axes[0, 0]
    for kind in reversed(kinds):  # the features last, so that they lie on top
        points = [(layer, each.found[kind].n_concepts) for layer, each in tested if kind in each.found]
        colour, marker, line = _KIND_STYLE.get(kind, (GREY, "x", ":"))
        axis.plot(*zip(*points, strict=True), marker + line, color=colour, label=label(kind), clip_on=False)
    layer_axis(axis, [layer for layer, _ in tested])
    axis.set_ylim(0, 1.05 * n_tested)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel("concepts")
    axis.set_title(f"Concepts found, of {n_tested:,} tested")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _bars(tested: tuple[int, concepts.Concepts], kinds: list[str], n_tested: int) -> Figure:
    layer, each = tested
    figure, axes = new_figure(6.4, 1.2 + 0.4 * len(kinds))
    axis = axes[0, 0]
    numbers = [each.found[kind].n_concepts for kind in kinds]
    bars = axis.barh(range(len(kinds))[::-1], numbers, 0.6, color=[_KIND_STYLE.get(kind, (GREY,))[0] for kind in kinds])
    axis.bar_label(bars, padding=3, fontsize=9)
    axis.set_yticks(range(len(kinds))[::-1], [label(kind) for kind in kinds])
    axis.set_xlim(0, 1.08 * n_tested)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", visible=False)
    axis.set_title(f"Layer {layer}: concepts found, of {n_tested:,} tested")
    return figure
