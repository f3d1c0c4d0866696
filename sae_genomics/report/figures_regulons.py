"""Figure of regulons: how well pairs of genes that units read together recover known pairs, beside rewired regulons."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sae_genomics.report.annotation import LABELS
from sae_genomics.report.figures import STYLE, layer_axis, new_figure
from sae_genomics.report.figures_network import UNIT_STYLE
from sae_genomics.report.regulons import Recovered


@matplotlib.rc_context(STYLE)
def recovery(layers: list[tuple[int, list[Recovered]]]) -> Figure | None:
    """AUROC and early precision ratio by layer; a bar from the lowest to the highest rewiring behind each point."""
    numbers = [layer for layer, found in layers if found]
    if not numbers:
        return None
    figure, axes = new_figure(8.6, 3.9, 1, 2)
    panels = (("AUROC", "auroc", "rewired_auroc", 0.5), ("Early precision ratio", "ratio", "rewired_ratio", 1.0))
    for axis, (title, own, rewired, level) in zip(axes[0], panels, strict=True):
        for offset, (units, (colour, marker)) in zip(
            np.linspace(-0.24, 0.24, len(UNIT_STYLE)), UNIT_STYLE.items(), strict=True
        ):
            shown = [(layer, each) for layer, found in layers for each in found if each.units == units]
            if not shown:
                continue
            x = np.array([layer for layer, _ in shown]) + offset
            low, high = (np.array([end(getattr(each, rewired)) for _, each in shown]) for end in (min, max))
            axis.vlines(x, low, high, color=colour, alpha=0.35, linewidth=4)
            axis.plot(x, [getattr(each, own) for _, each in shown], marker, color=colour, label=LABELS[units])
        axis.axhline(level, color="#9a9a9a", linewidth=1, linestyle=":")
        axis.set_title(title)
        layer_axis(axis, numbers)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=3,
        fontsize=9,
        title="bar: all rewirings; dotted: no relation",
    )
    return figure
