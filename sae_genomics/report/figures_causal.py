"""Figures of interventions: effects beside nulls, dose and response, what features read and write, steering."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sae_genomics.report.causal import METHODS, Causal, dose_curves
from sae_genomics.report.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, STYLE, TYPE_COLOURS, layer_axis, new_figure

Layers = list[tuple[int, Causal]]
MOST_PANELS = 4
_NULLS = {
    "direction": (GREY, "random directions"),
    "feature": (ORANGE, "random features"),
    "permuted": (GREEN, "other tokens"),
    "targets": (PURPLE, "random targets"),
}
_METHOD_STYLE = {"means": (BLUE, "o"), "features": (ORANGE, "D"), "concept": (GREEN, "^")}
_ROLES = {"neither": GREY, "reads": BLUE, "writes": ORANGE, "both": PURPLE}


@matplotlib.rc_context(STYLE)
def effects(layers: Layers) -> Figure | None:
    """Specificity of every tested feature, beside the ranges of the four nulls, by layer."""
    tested = [(layer, each) for layer, each in layers if each.n_tested]
    if not tested:
        return None
    figure, axes = new_figure(max(6.4, 1.1 * len(tested) + 3), 3.9)
    axis = axes[0, 0]
    for layer, each in tested:
        main = each.main
        values = main["specificity"].to_numpy(float)
        sure = (main["q_value"] <= 0.05).to_numpy(bool)
        spread = np.linspace(-0.09, 0.09, len(values)) if len(values) > 1 else np.zeros(1)
        axis.scatter(
            layer - 0.25 + spread[~sure], values[~sure], s=16, color=BLUE, alpha=0.45, linewidths=0, label="features"
        )
        if sure.any():
            axis.scatter(
                layer - 0.25 + spread[sure],
                values[sure],
                s=26,
                color=BLUE,
                edgecolors="black",
                linewidths=0.7,
                label="features, q ≤ 0.05",
            )
        outcome, masked = str(main["outcome"].iloc[0]), bool(main["masked"].iloc[0])
        ranges = each.nulls
        if len(ranges):
            ranges = ranges[(ranges["outcome"] == outcome) & (ranges["masked"].astype(bool) == masked)].set_index(
                "null"
            )
        for offset, (null, (colour, name)) in zip((0.0, 0.11, 0.22, 0.33), _NULLS.items(), strict=True):
            if len(ranges) and null in ranges.index:
                low, high = ranges.loc[null, ["low", "high"]]
                axis.vlines(layer + offset, low, high, color=colour, alpha=0.6, linewidth=4, label=name)
    axis.axhline(0, color="#9a9a9a", linewidth=1, linestyle=":")
    layer_axis(axis, [layer for layer, _ in tested])
    axis.set_ylabel("specificity")
    axis.set_title("What taking features out changes, beside nulls (bars: 95 % of their draws)")
    _legend(figure, axis, 3)
    return figure


@matplotlib.rc_context(STYLE)
def doses(layers: Layers) -> Figure | None:
    """Effect on own targets less that on matched ones by dose, one line per feature."""
    known = _spread([(layer, each) for layer, each in layers if len(each.doses)])
    if not known:
        return None
    figure, axes = new_figure(3.4 * len(known) + 0.6, 3.5, 1, len(known))
    for axis, (layer, each) in zip(axes[0], known, strict=True):
        for colour, (feature, (dose, effect)) in zip(TYPE_COLOURS, dose_curves(each).items(), strict=False):
            axis.plot(dose, effect, "o-", color=colour, markersize=3.5, label=str(feature))
        axis.axhline(0, color="#9a9a9a", linewidth=1, linestyle=":")
        axis.axvline(1, color="#9a9a9a", linewidth=1, linestyle=":")
        axis.set_xlabel("dose")
        axis.set_title(f"Layer {layer}")
        axis.legend(fontsize=7.5, title="feature", title_fontsize=7.5)
    axes[0, 0].set_ylabel("own targets less matched ones")
    return figure


@matplotlib.rc_context(STYLE)
def reads_writes(layers: Layers) -> Figure | None:
    """Input score against output score of the features that have both; without one, the input scores beside random directions."""
    scores = [each.scores.assign(layer=layer) for layer, each in layers if len(each.scores)]
    known = pd.concat(scores, ignore_index=True) if scores else pd.DataFrame({"reads": []})
    both = known[known["reads"].notna() & known["writes"].notna()] if len(known) else known
    if both.empty:
        return None
    figure, axes = new_figure(5.6, 4.2)
    axis = axes[0, 0]
    role = both["role"].where(both["role"].notna(), "neither")
    for name, colour in _ROLES.items():
        some = both[role == name]
        if len(some):
            axis.scatter(some["reads"], some["writes"], s=24, color=colour, alpha=0.8, linewidths=0, label=name)
    steers = both[both["steers"].eq(True)]
    if len(steers):
        axis.scatter(
            steers["reads"],
            steers["writes"],
            s=70,
            facecolors="none",
            edgecolors="black",
            linewidths=1,
            label="can steer",
        )
    axis.axvline(
        float(both["reads_random"].median()),
        color=GREY,
        linestyle="--",
        linewidth=1.2,
        label="random directions, median",
    )
    axis.axhline(
        float(both["writes_random"].median()) if both["writes_random"].notna().any() else 0.0,
        color=GREY,
        linestyle="--",
        linewidth=1.2,
    )
    axis.set_xlabel("input score (AUROC)")
    axis.set_ylabel("output score (specificity)")
    axis.set_title("What features read, and what they write")
    _legend(figure, axis, 3)
    return figure


@matplotlib.rc_context(STYLE)
def steering(layers: Layers) -> Figure | None:
    """How far embeddings go by dose, of the clearest pair of labels in each layer; bars reach to the highest random direction."""
    known = _spread([(layer, each) for layer, each in layers if len(each.steering)])
    if not known:
        return None
    figure, axes = new_figure(3.4 * len(known) + 0.6, 3.7, 1, len(known))
    for axis, (layer, each) in zip(axes[0], known, strict=True):
        rows = each.steering
        compared = rows[rows["p_toward"].notna()]
        best = (compared if len(compared) else rows).sort_values("toward", ascending=False, kind="stable").iloc[0]
        pair = rows[(rows["from_label"] == best["from_label"]) & (rows["to_label"] == best["to_label"])]
        for method, (colour, marker) in _METHOD_STYLE.items():
            some = pair[pair["method"] == method].sort_values("dose")
            if len(some):
                axis.fill_between(
                    some["dose"], some["toward_low"], some["toward_high"], color=colour, alpha=0.13, linewidth=0
                )
                axis.plot(
                    some["dose"], some["toward"], marker + "-", color=colour, label=METHODS[method], clip_on=False
                )
        null = pair[pair["toward_random_high"].notna()].drop_duplicates("dose")
        for offset, name, colour, said in (
            (-0.1, "random", GREY, "random: mean to highest"),
            (0.1, "shuffled", PURPLE, "halves: mean to highest"),
        ):
            axis.vlines(
                null["dose"] + offset,
                null[f"toward_{name}"],
                null[f"toward_{name}_high"],
                color=colour,
                alpha=0.6,
                linewidth=4,
                label=said,
            )
        axis.axhline(1, color="#9a9a9a", linewidth=1, linestyle=":")
        axis.set_xlabel("dose (differences of means)")
        axis.set_title(f"Layer {layer}\n{best['from_label']} → {best['to_label']}", fontsize=9.5)
    axes[0, 0].set_ylabel("share of the way moved")
    _legend(figure, axes[0, 0], 5)
    return figure


def _spread(known: Layers) -> Layers:
    """At most MOST_PANELS of them, at even distances."""
    if len(known) <= MOST_PANELS:
        return known
    return [known[index] for index in np.linspace(0, len(known) - 1, MOST_PANELS).round().astype(int)]


def _legend(figure: Figure, axis: matplotlib.axes.Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    first = dict(zip(reversed(labels), reversed(handles), strict=True))
    names = list(dict.fromkeys(labels))
    figure.legend([first[name] for name in names], names, loc="outside lower center", ncols=columns, fontsize=8.5)
