"""Figures of networks: shares over layers beside chance, and the networks of the clearest features."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sae_genomics.report.annotation import LABELS
from sae_genomics.report.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, STYLE, layer_axis, new_figure
from sae_genomics.report.network import Beside, Drawing, headline_channel, positions

UNIT_STYLE = {
    "features": (BLUE, "o"),
    "neurons": (GREY, "s"),
    "pca": (GREEN, "^"),
    "ica": (PURPLE, "v"),
    "untrained": ("#B8860B", "P"),
}


@matplotlib.rc_context(STYLE)
def over_layers(layers: list[tuple[int, list[Beside]]]) -> Figure | None:
    """Share of units with more pairs than chance, one panel per channel, beside the matched draws of features."""
    channels = sorted(
        {each.channel for _, found in layers for each in found}, key=lambda name: headline_order(layers, name)
    )
    if not channels or len(layers) < 2:
        return None
    figure, axes = new_figure(3.6 * len(channels) + 0.6, 3.6, 1, len(channels))
    for axis, channel in zip(axes[0], channels, strict=True):
        for units, (colour, marker) in UNIT_STYLE.items():
            shown = [
                (layer, each)
                for layer, found in layers
                for each in found
                if (each.units, each.channel) == (units, channel)
            ]
            if not shown:
                continue
            numbers = [layer for layer, _ in shown]
            axis.plot(numbers, [each.share for _, each in shown], marker + "-", color=colour, label=LABELS[units])
            if units == "features":
                _chance(axis, shown)
        axis.set_title(channel)
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        layer_axis(axis, [layer for layer, _ in layers])
        axis.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("units with more pairs than chance")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def headline_order(layers: list[tuple[int, list[Beside]]], channel: str) -> tuple[bool, str]:
    """The channel of the headline first."""
    return channel != headline_channel([each for _, found in layers for each in found]), channel


def _chance(axis: Axes, shown: list[tuple[int, Beside]]) -> None:
    means = [float(np.mean(each.null_share)) if each.null else float("nan") for _, each in shown]
    axis.plot(
        [layer for layer, _ in shown], means, "D:", color=ORANGE, markersize=4, label="features, matched genes drawn"
    )


@matplotlib.rc_context(STYLE)
def best(drawn: list[Drawing]) -> Figure | None:
    """Known pairs among the top genes of some features."""
    if not drawn:
        return None
    columns = min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, axes = new_figure(3.9 * columns, 3.7 * rows, rows, columns)
    for axis in axes.ravel():
        axis.set_axis_off()
    for axis, each in zip(axes.ravel(), drawn, strict=False):
        _network(axis, each)
    return figure


def _network(axis: Axes, drawn: Drawing) -> None:
    genes, number = np.unique(drawn.edges[["gene_a", "gene_b"]].to_numpy(str), return_inverse=True)
    first, second = number.reshape(-1, 2).T
    place = positions(len(genes), first, second)
    for a, b, score in zip(first, second, drawn.edges["score"].to_numpy(float), strict=True):
        axis.plot(*place[[a, b]].T, "-", color=GREY, linewidth=0.5 + 1.5 * max(score - 0.4, 0), alpha=0.6, zorder=1)
    degree = np.bincount(number.ravel(), minlength=len(genes))
    axis.scatter(place[:, 0], place[:, 1], s=18 + 10 * np.sqrt(degree), color=BLUE, zorder=2)
    for gene, (x, y) in zip(genes, place, strict=True):
        axis.annotate(gene, (x, y), (0, 4), textcoords="offset points", ha="center", fontsize=7, zorder=3)
    axis.set_xlim(-1.25, 1.25)
    axis.set_ylim(-1.2, 1.25)
    axis.set_title(
        f"layer {drawn.layer}, feature {drawn.feature}: {drawn.n_edges} {drawn.channel} pairs,\n{drawn.expected:.1f} expected",
        fontsize=9,
    )
