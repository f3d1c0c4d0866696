"""Figures of features over layers: the flow of their fates, modules from layer to layer, variance explained."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import PercentFormatter

from sae_genomics.report.cross_layer import BORN, DIED, STEPS, Passage, module_name
from sae_genomics.report.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, STYLE, layer_axis, new_figure, shorten

_COLOURS = {"persistent": BLUE, "split": GREEN, "merged": PURPLE, "unit": "#B0B0B0", DIED: ORANGE, BORN: "#E69F00"}
_BAR = 0.05  # half the width of a layer's bar
_STUB = 0.16  # how far what dies or is born reaches
_MOST_PER_LAYER = 10
_METHODS = {
    "features": ("SAE features", BLUE, "o-"),
    "pca_per_token": ("PCA, k per token", GREEN, "s-"),
    "pca": ("PCA, first k", GREEN, "s:"),
    "ica": ("ICA, k per token", PURPLE, "D-"),
    "random": ("random directions, k per token", GREY, "x--"),
}


@matplotlib.rc_context(STYLE)
def flow(passages: list[Passage], unit: str) -> Figure | None:
    """An alluvial picture: every layer a bar of its features, and a band from each layer to the next for each fate."""
    steps = [each for each in passages if each.left and each.right]
    if not steps:
        return None
    figure, axes = new_figure(min(2.2 + 1.9 * (len(steps) + 1), 16), 4.2)
    axis = axes[0, 0]
    heights: dict[int, int] = {}
    positions = {
        layer: index for index, layer in enumerate(sorted({end for each in steps for end in (each.first, each.second)}))
    }
    for each in steps:
        heights[each.first] = max(heights.get(each.first, 0), sum(each.left.values()))
        heights[each.second] = max(heights.get(each.second, 0), sum(each.right.values()))
        _bands(axis, each, positions[each.first], positions[each.second])
    for layer, height in heights.items():
        axis.add_patch(Rectangle((positions[layer] - _BAR, 0), 2 * _BAR, height, color="#333333", linewidth=0))
        axis.annotate(
            f"{height:,}", (positions[layer], height), (0, 3), textcoords="offset points", ha="center", fontsize=8.5
        )
    axis.set_xlim(-0.3, len(positions) - 0.7)
    axis.set_ylim(0, 1.12 * max(heights.values()))
    axis.set_xticks(list(positions.values()), [f"layer {layer}" for layer in positions])
    axis.set_yticks([])
    axis.grid(visible=False)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_title("What becomes of features from layer to layer")
    words = {
        "persistent": "persist",
        "split": "split",
        "merged": "merge",
        "unit": f"by {unit} alone",
        DIED: "die",
        BORN: "born",
    }
    present = {word for each in steps for word in (*each.left, *each.right)}
    handles = [Rectangle((0, 0), 1, 1, color=_COLOURS[word], alpha=0.75) for word in words if word in present]
    labels = [text for word, text in words.items() if word in present]
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=9)
    return figure


def _bands(axis: Axes, step: Passage, left_x: float, right_x: float) -> None:
    """The fates of one step, from the bottom: what goes on on both sides, then what dies at the left and is born at the right."""
    left = right = 0
    for word in STEPS:
        out, into = step.left.get(word, 0), step.right.get(word, 0)
        if out or into:
            _band(axis, (left_x + _BAR, left, left + out), (right_x - _BAR, right, right + into), _COLOURS[word])
        left, right = left + out, right + into
    for start, x, number, word in (
        (left, left_x + _BAR, step.left.get(DIED, 0), DIED), (right, right_x - _BAR, step.right.get(BORN, 0), BORN),
    ):  # fmt: skip
        if number:
            reach = x + (_STUB if word == DIED else -_STUB)
            _band(
                axis, (x, start, start + number), (reach, start + 0.25 * number, start + 0.75 * number), _COLOURS[word]
            )


def _band(axis: Axes, left: tuple[float, float, float], right: tuple[float, float, float], colour: str) -> None:
    (x, low, high), (to, to_low, to_high) = left, right
    middle = (x + to) / 2
    points = [
        (x, low), (middle, low), (middle, to_low), (to, to_low), (to, to_high), (middle, to_high), (middle, high), (x, high), (x, low),
    ]  # fmt: skip
    curve, line = Path.CURVE4, Path.LINETO
    codes = [Path.MOVETO, curve, curve, curve, line, curve, curve, curve, Path.CLOSEPOLY]
    axis.add_patch(PathPatch(Path(points, codes), facecolor=colour, alpha=0.6, linewidth=0))


@matplotlib.rc_context(STYLE)
def modules(passing: pd.DataFrame | None, between: pd.DataFrame) -> Figure | None:
    """Modules above chance by layer, as large as they have features; lines where two of neighbouring layers fire together.

    passing: rows of module_summary.parquet above chance. between: see `cross_layer.between_modules`.
    """
    if passing is None or passing.empty:
        return None
    shown = passing[passing["module"] < _MOST_PER_LAYER]
    layers = sorted(set(shown["layer"].astype(int)))
    figure, axes = new_figure(min(2.6 + 2.3 * len(layers), 18), 1.8 + 0.62 * max(shown.groupby("layer").size()))
    axis = axes[0, 0]
    place = {}
    for x, layer in enumerate(layers):
        rows = shown[shown["layer"] == layer].sort_values("module")
        for y, number in enumerate(rows["module"]):
            place[layer, int(number)] = (float(x), float(-y))
    for row in between.itertuples():
        ends = [place.get((int(getattr(row, f"layer_{side}")), int(getattr(row, f"module_{side}")))) for side in "ab"]
        share = float(row.share)  # type: ignore[arg-type]
        if None in ends or share < 0.05:
            continue
        axis.plot(*zip(*ends, strict=True), color=GREY, linewidth=6 * share, alpha=0.25 + 0.5 * share, zorder=1)  # type: ignore[arg-type]
    points = np.array([place[int(row["layer"]), int(row["module"])] for _, row in shown.iterrows()])
    size = shown["size"].to_numpy(float)
    colours = axis.scatter(
        points[:, 0], points[:, 1], s=60 + 340 * size / size.max(), c=shown["score"].to_numpy(float), cmap="viridis", vmin=0, zorder=2,
        edgecolors="white",
    )  # fmt: skip
    for (x, y), (_, row) in zip(points, shown.iterrows(), strict=True):
        text = f"{shorten(module_name(row), 24)} ({int(row['size'])})"
        axis.annotate(text, (x, y), (0, -17), textcoords="offset points", ha="center", fontsize=7.5, zorder=3)
    bar = figure.colorbar(colours, ax=axis, shrink=0.8, pad=0.01)
    bar.set_label("held out, log2 against chance", fontsize=8.5)
    axis.set_xlim(-0.6, len(layers) - 0.4)
    axis.set_ylim(points[:, 1].min() - 0.7, 0.5)
    axis.set_xticks(range(len(layers)), [f"layer {layer}" for layer in layers])
    axis.set_yticks([])
    axis.grid(visible=False)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_title("Modules above chance (features in brackets); line: pairs above chance between them")
    return figure


@matplotlib.rc_context(STYLE)
def variance(table: pd.DataFrame | None) -> Figure | None:
    """Variance explained by layer at the largest k, one line per method, with intervals."""
    if table is None or table.empty:
        return None
    largest = table[table["k"] == table.groupby("layer")["k"].transform("max")]
    layers = sorted(set(largest["layer"].astype(int)))
    figure, axes = new_figure(6.8, 3.8)
    axis = axes[0, 0]
    for name, (label, colour, style) in _METHODS.items():
        rows = largest[largest["method"] == name].sort_values("layer")
        share = rows["explained_heldout"].to_numpy(float)
        if not np.isfinite(share).any():
            continue
        axis.plot(rows["layer"], share, style, color=colour, label=label)
        axis.fill_between(
            rows["layer"], rows["low"].astype(float), rows["high"].astype(float), color=colour, alpha=0.15, linewidth=0
        )
    layer_axis(axis, layers)
    axis.set_ylim(min(0.0, float(largest["explained_heldout"].min())), 1)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_ylabel("variance explained")
    k = sorted(set(largest["k"].astype(int)))
    axis.set_title(f"Held-out variance explained with k = {' to '.join(map(str, (k[0], k[-1]) if len(k) > 1 else k))}")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure
