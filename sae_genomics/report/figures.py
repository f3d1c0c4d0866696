"""The report's figures (matplotlib, no display needed). Colours are Okabe and Ito's, safe for colour-blind eyes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.cm
import matplotlib.colors
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sae_genomics.atomic import atomic_path
from sae_genomics.report.cells import CellSample
from sae_genomics.report.markdown import is_number
from sae_genomics.report.summary import RATE_EDGES, LayerSummary
from sae_genomics.report.wording import Wording, a

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676"
# Twelve hues that stay apart for the common kinds of colour blindness; further types share grey.
TYPE_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00",
    "#8C6D31", "#332288", "#88CCEE", "#882255", "#B2B200", "#444444",
)  # fmt: skip
KIND_STYLE: dict[Any, Any] = {"feature": (BLUE, "o"), "unit": (ORANGE, "D"), "neuron": (GREY, "s")}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "savefig.dpi": 150,
    "text.parse_math": False,  # a `$` in the name of a gene or cell type is a dollar
}


@matplotlib.rc_context(STYLE)
def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from font"
        )  # a name in a script that the font lacks: boxes are drawn
        figure.savefig(temporary, format="png", facecolor="white")


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, npt.NDArray[np.object_]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def layer_axis(axis: Axes, layers: Sequence[int]) -> None:
    axis.set_xlabel("layer")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    axis.set_xlim(min(layers) - 0.5, max(layers) + 0.5)
    axis.margins(y=0.12)


@matplotlib.rc_context(STYLE)
def reconstruction(layers: list[LayerSummary]) -> Figure | None:
    """FVU, L0 and dead share by layer, on held-out items."""
    shown = [each for each in layers if each.metrics]
    offered = (
        ("fvu", "Unexplained variance (FVU)", "share of variance", BLUE),
        ("l0", "Active features per token (L0)", "features", GREEN),
        ("dead_share", "Dead features", "share of features", ORANGE),
    )
    panels = tuple(panel for panel in offered if any(is_number(each.metrics.get(panel[0])) for each in shown))
    if not shown or not panels:
        return None
    figure, axes = new_figure(3.4 * len(panels) + 0.4, 3.1, 1, len(panels))
    numbers = [each.layer for each in shown]
    for axis, (key, title, label, colour) in zip(axes[0], panels, strict=True):
        values = [float(each.metrics[key]) if is_number(each.metrics.get(key)) else np.nan for each in shown]
        axis.plot(numbers, values, "o-", color=colour)
        axis.set_title(title)
        axis.set_ylabel(label)
        layer_axis(axis, numbers)
        top = np.nanmax(values)
        if key != "fvu":
            axis.set_ylim(0, top * 1.25 if top > 0 else 1)
        else:
            axis.set_ylim(0, max(top * 1.2, 0.01))
        if key == "dead_share":
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if top > 0.05 else 1))
    return figure


@matplotlib.rc_context(STYLE)
def firing_rates(layers: list[LayerSummary], wording: Wording) -> Figure | None:
    """How often features fire, one line per layer; those that never fire stand at the left."""
    shown = [each for each in layers if each.rates is not None and each.n_features]
    if not shown:
        return None
    figure, axes = new_figure(6.6, 3.5)
    axis = axes[0, 0]
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, max(len(shown), 2)))
    for each, colour in zip(shown, colours, strict=False):
        assert each.rates is not None
        axis.stairs(each.rates / each.n_features, RATE_EDGES, color=colour, linewidth=1.8, label=f"layer {each.layer}")
    used = np.flatnonzero(sum(each.rates for each in shown if each.rates is not None) > 0)
    first = RATE_EDGES[max(used[0] - 1, 0)] if len(used) else RATE_EDGES[0]
    ticks = np.arange(np.floor(first), 0.1)
    axis.set_xticks(ticks, [_power(tick) for tick in ticks])
    axis.set_xlim(first, 0)
    axis.set_xlabel(f"firing rate: share of {wording.nouns.tokens} in which the feature is active")
    axis.set_ylabel("share of features")
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_title("How often features fire")
    if len(shown) <= 8:
        axis.legend(fontsize=9)
    else:
        scale = matplotlib.cm.ScalarMappable(
            matplotlib.colors.Normalize(shown[0].layer, shown[-1].layer),
            matplotlib.colors.ListedColormap(colours),
        )
        figure.colorbar(scale, ax=axis, label="layer")
    return figure


def _power(exponent: float) -> str:
    return f"{100 * 10**exponent:g} %"


@matplotlib.rc_context(STYLE)
def labels(wide: pd.DataFrame, wording: Wording) -> Figure | None:
    """Held-out AUROC of the best feature, unit and neuron of every label, with 95 % intervals.

    wide: from `summary.side_by_side`. At most 40 labels are drawn, those with the best features.
    """
    wide = wide[wide[("feature", "auroc")].notna() | wide[("unit", "auroc")].notna()].head(40)
    if wide.empty:
        return None
    named = {"feature": "SAE feature", "unit": wording.single_unit, "neuron": "raw neuron"}
    figure, axes = new_figure(7.2, 1.5 + 0.42 * len(wide))
    axis = axes[0, 0]
    heights = np.arange(len(wide))[::-1].astype(float)
    for offset, kind in zip((0.2, 0.0, -0.2), KIND_STYLE, strict=True):
        label, (colour, marker) = named[kind], KIND_STYLE[kind]
        auroc = wide[(kind, "auroc")].to_numpy(float)
        ends = np.vstack([auroc - wide[(kind, "low")], wide[(kind, "high")] - auroc])
        if not np.isfinite(auroc).any():
            continue
        axis.errorbar(
            auroc, heights + offset, xerr=np.nan_to_num(np.maximum(ends, 0)), fmt=marker, color=colour, ecolor=colour,
            elinewidth=1.1, alpha=0.95, label=label,
        )  # fmt: skip
    numbers = wide[("feature", "n_items")].fillna(wide[("unit", "n_items")])
    names = [f"{shorten(str(name), 34)}  ({int(n) if is_number(n) else '?'})" for name, n in numbers.items()]
    groups = wide[("feature", "n_groups")]
    grouped = bool(groups.notna().any())
    if grouped:
        names = [f"{name[:-1]} in {int(n) if is_number(n) else '?'})" for name, n in zip(names, groups, strict=True)]
    axis.set_yticks(heights, names)
    axis.axvline(0.5, color="#9a9a9a", linewidth=1, linestyle=":")
    lowest = np.nanmin([wide[(kind, "low")].min() for kind in KIND_STYLE] + [0.9])
    axis.set_xlim(max(0.0, min(lowest - 0.03, 0.9)), 1.01)
    axis.set_ylim(-0.6, len(wide) - 0.4)
    axis.grid(axis="y", visible=False)
    items = wording.nouns.items
    axis.set_xlabel(
        f"mean AUROC of held-out groups, with 95 % interval\n(in brackets: {items} of the {wording.type} in how many groups)"
        if grouped
        else f"AUROC on held-out {items}, with 95 % interval\n(in brackets: held-out {items} of the {wording.type})"
    )
    axis.set_title(f"One unit to tell {a(wording.nouns.label)} from all others")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    return figure


@matplotlib.rc_context(STYLE)
def embedding(sample: CellSample, panels: Sequence[tuple[str, npt.NDArray[np.float32]]]) -> Figure | None:
    """The cells by type, and coloured by one feature per panel.

    panels: title and activation [sampled cells] of each.
    """
    if sample.xy is None or not len(sample.rows):
        return None
    total = len(panels) + bool(sample.types)
    if not total:
        return None
    columns = min(3, total)
    rows = -(-total // columns)
    figure, axes = new_figure(3.7 * columns, 3.5 * rows, rows, columns)
    size = float(np.clip(12_000 / len(sample.rows), 1.5, 18))
    flat = axes.ravel()
    if sample.types:
        _types_panel(flat[0], sample, size)
    for axis, (title, activation) in zip(flat[bool(sample.types) :], panels, strict=False):
        order = np.argsort(activation, kind="stable")
        points = axis.scatter(
            sample.xy[order, 0],
            sample.xy[order, 1],
            c=activation[order],
            s=size,
            cmap=_FADE,
            vmin=0,
            linewidths=0,
            rasterized=True,
        )
        axis.set_title(title, fontsize=9.5)
        bar = figure.colorbar(points, ax=axis, shrink=0.7, pad=0.01)
        bar.ax.tick_params(labelsize=7.5)
        bar.outline.set_visible(False)
    for axis in flat[:total]:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
        for side in axis.spines.values():
            side.set_visible(False)
        axis.set_aspect("equal", adjustable="datalim")
    for axis in flat[total:]:
        axis.axis("off")
    if sample.types:
        handles, labels = flat[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(columns + 1, 4),
            fontsize=8.5,
            markerscale=6 / size**0.5,
        )
    return figure


_FADE = matplotlib.colors.LinearSegmentedColormap.from_list(
    "fade", ["#e2e2e2", "#fdca8c", "#f1605d", "#9e2f7f", "#3b0f70"]
)


def _types_panel(axis: Axes, sample: CellSample, size: float) -> None:
    assert sample.xy is not None
    axis.set_title(f"cell types ({sample.basis.upper()})", fontsize=9.5)
    counts = np.bincount(sample.cell_type[sample.cell_type >= 0], minlength=len(sample.types))
    frequent = [code for code in np.argsort(-counts, kind="stable")[: len(TYPE_COLOURS)] if counts[code]]
    rest = ~np.isin(sample.cell_type, frequent)
    if rest.any():
        axis.scatter(sample.xy[rest, 0], sample.xy[rest, 1], s=size, color="#c9c9c9", linewidths=0, rasterized=True)
    for code, colour in zip(frequent, TYPE_COLOURS, strict=False):
        xy = sample.xy[sample.cell_type == code]
        axis.scatter(
            xy[:, 0],
            xy[:, 1],
            s=size,
            color=colour,
            linewidths=0,
            rasterized=True,
            label=shorten(sample.types[code], 30),
        )


def shorten(text: str, length: int) -> str:
    """At most `length` characters, the end cut."""
    return text if len(text) <= length else text[: length - 1] + "…"
