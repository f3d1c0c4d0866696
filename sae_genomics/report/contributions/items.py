"""What the cells themselves add: where each feature is strong, on the embedding of the cells."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from sae_genomics.report import associations_json, figures
from sae_genomics.report.cells import top_cells
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Draw
from sae_genomics.report.dashboard_items import ItemsPanel
from sae_genomics.report.markdown import is_number
from sae_genomics.report.summary import LayerSummary

EMBEDDING_PANELS = 8


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    """Keep the columns of features that tell a label best in this layer, and of its first best features; write the JSON."""
    activations = results.activations
    if activations is not None:
        features: list[int] = []
        if summary.baselines is not None:
            own = summary.baselines.loc[summary.baselines["kind"] == "feature", "unit"]
            features += own.astype(int).tolist()
        if summary.best is not None:
            features += summary.best["feature"].head(EMBEDDING_PANELS).astype(int).tolist()
        columns = np.array(sorted({each for each in features if 0 <= each < activations.shape[1]}), dtype=np.int64)
        dense = activations[:, columns].toarray()
        for index, feature in enumerate(columns):
            contents.activations[summary.layer, int(feature)] = dense[:, index]
    path = contents.run.layer_results(results.layer) / associations_json.CELLS_FILE
    if results.table("labels") is not None:
        top = top_cells(activations, associations_json.CELLS_LISTED) if activations is not None else None
        associations_json.write_cells(path, results, contents.sample, top)
    else:
        path.unlink(missing_ok=True)  # what an earlier report wrote is of tables that are gone or stale


def _embedding(contents: Contents) -> Figure | None:
    """The best feature of each of the largest labels; without labels the best features of the deepest layer."""
    sample, wide = contents.sample, contents.wide
    if sample is None or sample.xy is None:
        return None
    wanted: list[tuple[str, int, int]] = []
    if wide is not None:
        largest = wide.sort_values(("feature", "n_items"), ascending=False, kind="stable")
        rows = [(str(name), row) for name, row in largest.head(EMBEDDING_PANELS)["feature"].iterrows()]
        wanted = [(name, int(row["layer"]), int(row["unit"])) for name, row in rows if is_number(row["unit"])]
    else:
        deepest = next((each for each in reversed(contents.layers) if each.best is not None and len(each.best)), None)
        if deepest is not None and deepest.best is not None:
            shown = deepest.best.head(EMBEDDING_PANELS)
            wanted = [
                (", ".join(units[:3]), deepest.layer, int(feature))
                for feature, units in zip(shown["feature"], shown["units"], strict=True)
            ]
    panels = [
        (f"{figures.shorten(name, 30)}\nlayer {layer}, feature {feature}", contents.activations[layer, feature])
        for name, layer, feature in wanted
        if (layer, feature) in contents.activations
    ]
    return figures.embedding(sample, panels)


def _figures(contents: Contents) -> Mapping[str, Draw]:
    return {"embedding": lambda: _embedding(contents)}


ITEMS = Contribution(
    name="cells",
    order=80,
    kinds=("cells",),
    take_layer=_take,
    figures=_figures,
    figure_files=("embedding.png",),
    panel=ItemsPanel,
)
