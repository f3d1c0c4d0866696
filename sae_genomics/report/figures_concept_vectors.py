"""Figures of concept vectors: each concept's AUROC beside composition and chance, and examples of where scores are high."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sae_genomics.report.concept_vectors import BEYOND, CHANCE_ALONE
from sae_genomics.report.figures import BLUE, GREY, ORANGE, STYLE, new_figure, shorten
from sae_genomics.report.section_concept_vectors import WINDOWS
from sae_genomics.report.wording import Wording

MOST = 40
MOST_PICTURES = 8
_CHOICES = ("best", "random", "worst")


@matplotlib.rc_context(STYLE)
def overview(best: pd.DataFrame, wording: Wording) -> Figure | None:
    """AUROC with its interval in the best layer, composition, and the larger of both nulls. best: `concept_vectors.best`."""
    shown = best[best["auroc"].notna()].head(MOST).iloc[::-1].reset_index(drop=True)
    if shown.empty:
        return None
    figure, axes = new_figure(7.4, 1.4 + 0.27 * len(shown))
    axis = axes[0, 0]
    y = np.arange(len(shown))
    known = shown["verdict"].isin((BEYOND, CHANCE_ALONE))
    chance = shown[["null_shuffled", "null_random"]].astype(float).max(axis=1)
    axis.hlines(y, shown["auroc_low"].astype(float), shown["auroc_high"].astype(float), color=BLUE, linewidth=1.4)
    axis.plot(chance, y, "|", color=GREY, markersize=9, markeredgewidth=2, label="shuffled or random concepts")
    axis.plot(shown["auroc_composition"].astype(float), y, "D", color=ORANGE, markersize=5, label="composition alone")
    axis.plot(shown["auroc"].where(known), y, "o", color=BLUE, label="concept vector")
    axis.plot(shown["auroc"].where(~known), y, "o", color=BLUE, fillstyle="none", label="concept vector, q too large")
    axis.set_yticks(
        y, [f"{shorten(str(row['name']), 40)}  (layer {int(row['layer'])})" for row in shown.to_dict("records")]
    )
    axis.axvline(0.5, color="#9a9a9a", linewidth=1, linestyle=":")
    lowest = np.nanmin(
        [chance.min(), shown["auroc_composition"].astype(float).min(), shown["auroc_low"].astype(float).min(), 0.5]
    )
    axis.set_xlim(max(0.0, lowest - 0.03), 1.01)
    axis.set_ylim(-0.6, len(shown) - 0.4)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(f"AUROC on held-out {wording.nouns.items}, with 95 % interval")
    axis.set_title("Concepts in their best layer")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def picture_name(number: int, concept: str) -> str:
    """Name of a concept's figure."""
    return f"{WINDOWS}_{number:02d}_{re.sub('[^A-Za-z0-9]+', '_', concept).strip('_')[:40]}"


@matplotlib.rc_context(STYLE)
def windows(examples: pd.DataFrame, layer: int, wording: Wording) -> Figure | None:
    """One line per example: scores as colour, annotated spans framed, chosen windows underlined. examples: rows of one concept."""
    if examples.empty:
        return None
    ordered = pd.concat([examples[examples["choice"] == choice].sort_values("rank") for choice in _CHOICES])
    width = max(len(scores) for scores in ordered["scores"])
    levels = np.full((len(ordered), width), np.nan)
    for row, scores in enumerate(ordered["scores"]):
        levels[row, : len(scores)] = np.asarray(scores, np.float64)
    reach = float(np.nanquantile(np.abs(levels), 0.99)) or 1.0
    figure, axes = new_figure(max(6.0, 2.6 + 0.06 * width), 1.3 + 0.26 * len(ordered))
    axis = axes[0, 0]
    image = axis.imshow(levels, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    for row, example in enumerate(ordered.to_dict("records")):
        for start, stop in _runs(example["in_span"]):
            axis.add_patch(
                Rectangle((start - 0.5, row - 0.42), stop - start, 0.84, fill=False, edgecolor="black", linewidth=1.3)
            )
        for start, stop in _runs(example["in_window"]):
            axis.plot(
                [start - 0.4, stop - 0.6],
                [row + 0.46, row + 0.46],
                color="#007a3d",
                linewidth=2.2,
                solid_capstyle="butt",
            )
    axis.set_yticks(
        range(len(ordered)),
        [
            f"{row['choice']}  {shorten(str(row['item_id']), 18)}  IoU {row['iou']:.2f}"
            for row in ordered.to_dict("records")
        ],
        fontsize=8,
    )
    axis.grid(visible=False)
    axis.set_xlabel(
        f"{wording.nouns.tokens} of the part shown   (frame: annotated {wording.nouns.span}; green line: window chosen)"
    )
    axis.set_title(f"{shorten(str(ordered.iloc[0]['name']), 50)}, layer {layer}")
    figure.colorbar(image, ax=axis, label="score minus mean", shrink=0.8)
    return figure


def _runs(mask: object) -> list[tuple[int, int]]:
    """Unbroken runs of True: (start, stop)."""
    flat = np.concatenate([[0], np.asarray(mask, bool).astype(int), [0]])
    change = np.diff(flat)
    return list(zip(np.flatnonzero(change == 1).tolist(), np.flatnonzero(change == -1).tolist(), strict=True))
