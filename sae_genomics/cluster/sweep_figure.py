"""The sparsity-FVU frontier of a sweep: what one more active feature per token gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_genomics.atomic import atomic_path


def draw_frontier(path: Path, rows: Sequence[Mapping[str, Any]], grid: Sequence[str]) -> None:
    """One panel per layer: L0 (active features per token, logarithmic) against held-out FVU; points that none beats are joined.

    rows: as `sweep.collect` gives them. grid: names of the grid's columns, which label the points.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    layers = sorted({row["layer"] for row in rows})
    columns = min(len(layers), 4)
    lines = -(-len(layers) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns, 3.6 * lines), squeeze=False, sharey=True, layout="constrained"
    )
    for axis, layer in zip(axes.flat, layers, strict=False):
        points = [
            row for row in rows if row["layer"] == layer and row.get("fvu") is not None and row.get("l0") is not None
        ]
        best = frontier([(row["l0"], row["fvu"]) for row in points])
        axis.plot([x for x, _ in best], [y for _, y in best], color="0.6", lw=1, zorder=1)
        axis.scatter([row["l0"] for row in points], [row["fvu"] for row in points], s=24, zorder=2)
        for row in points:
            axis.annotate(
                ", ".join(f"{name} {row[name]}" for name in grid),
                (row["l0"], row["fvu"]),
                fontsize=7,
                xytext=(4, 4),
                textcoords="offset points",
            )
        axis.set(title=f"layer {layer}", xlabel="active features per token (L0)", xscale="log")
    for axis in axes[:, 0]:
        axis.set_ylabel("held-out FVU (lower is better)")
    for axis in axes.flat[len(layers) :]:
        axis.set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both coordinates (lower is better), by the first coordinate."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not best or y < best[-1][1]:
            best.append((x, y))
    return best
