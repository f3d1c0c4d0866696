"""The panel of concept vectors: a table of concepts above the list, with pictures, and the concepts that a feature is part of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.report import concept_vectors as of_vectors
from sae_genomics.report.dashboard_arrays import Names, empty, in_rows, shortened
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings
from sae_genomics.report.markdown import is_number
from sae_genomics.report.summary import LayerSummary

MOST = 200  # concepts in the page
MOST_WITH_PICTURES = 40
_EMPTY = empty(("rank", "weight", "carried"), ("concept", "name"))


class ConceptVectorsPanel(Panel):
    """Concepts stand in their best layer, as in report.md."""

    script = "dashboard_concept_vectors.js"
    lists_of = ("carries",)

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self._names = Names()
        self._known: list[LayerSummary] = []

    def add(self, layer: PanelLayer) -> None:
        known = of_vectors.layer_concepts(layer.results, None)
        features = _EMPTY if known is None or known.features.empty else known.features
        taken = features[features["feature"].notna()]
        entries, row = in_rows(
            taken.assign(feature=taken["feature"].astype(np.int64), order=-taken["weight"].astype(float)),
            layer.rows,
            ["order"],
            12,
        )
        self.lists["carries"].add(
            len(layer),
            row,
            {
                "concept": self._names.codes(entries["name"]),
                "weight": shortened(entries["weight"]),
                "carried": entries["carried"].to_numpy(bool).astype(np.uint8),
            },
        )
        self._known.append(LayerSummary(layer.results.layer, parts={} if known is None else {of_vectors.PART: known}))

    def forget(self, n_layers: int) -> None:
        super().forget(n_layers)
        del self._known[n_layers:]

    def meta(self) -> dict[str, Any]:
        of_vectors.over_layers(self._known)
        known = of_vectors.of(self._known)
        best = of_vectors.best(self._known, self.settings.config.validation.fdr).head(MOST)
        if best.empty:
            return {"concept_vectors": [], "carried_concepts": self._names.texts}
        tables = {
            name: _by_concept(of_vectors.beside(known, best, name)) for name in ("localisation", "features", "windows")
        }
        rows = []
        for number, row in enumerate(best.to_dict("records")):
            concept = row["concept"]
            rows.append(
                _numbers(row)
                | _place(tables["localisation"].get(concept))
                | {"features": _features(tables["features"].get(concept))}
                | {"examples": _examples(tables["windows"].get(concept)) if number < MOST_WITH_PICTURES else []}
            )
        return {"concept_vectors": rows, "carried_concepts": self._names.texts}

    def notes(self) -> list[str]:
        more = len(of_vectors.best(self._known, self.settings.config.validation.fdr)) - MOST
        return [f"{more:,} more concepts are in concept_vectors.parquet of each layer."] if more > 0 else []


def _by_concept(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {} if frame.empty else {str(concept): rows for concept, rows in frame.groupby("concept", sort=False)}


def _known(value: Any, places: int = 4) -> float | None:
    return round(float(value), places) if is_number(value) else None


def _numbers(row: dict[Any, Any]) -> dict[str, Any]:
    chance = [value for value in (row["null_shuffled"], row["null_random"]) if is_number(value)]
    q = row["q_value"]
    return {
        "name": str(row["name"]), "kind": str(row["kind"]).replace("_", " "), "layer": int(row["layer"]), "verdict": row["verdict"],
        "auroc": _known(row["auroc"]), "low": _known(row["auroc_low"]), "high": _known(row["auroc_high"]), "chance": _known(max(chance)) if chance else None,
        "composition": _known(row["auroc_composition"]), "log10q": _known(np.log10(q)) if is_number(q) and q > 0 else None,
    }  # fmt: skip


def _place(rows: pd.DataFrame | None) -> dict[str, Any]:
    first = None if rows is None else rows.iloc[0]
    names = {"iou": "iou", "ceiling": "iou_ceiling", "random": "iou_random"}
    return {name: None if first is None else _known(first[column], 3) for name, column in names.items()}


def _features(rows: pd.DataFrame | None) -> list[list[float]]:
    if rows is None or not bool(rows["carried"].iloc[0]):
        return []
    taken = rows[rows["feature"].notna()]
    return [
        [int(feature), round(float(weight), 2)]
        for feature, weight in zip(taken["feature"], taken["weight"], strict=True)
    ]


def _examples(rows: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Scores as whole numbers from -99 to 99 of the concept's largest; spans and windows as one character per token."""
    if rows is None:
        return []
    largest = (
        max((float(np.abs(np.asarray(each, float)).max(initial=0.0)) for each in rows["scores"]), default=0.0) or 1.0
    )
    return [
        {
            "choice": row["choice"], "item": str(row["item_id"]), "iou": _known(row["iou"], 2), "start": int(row["start"]), "units": list(map(str, row["units"])),
            "levels": np.rint(99 * np.asarray(row["scores"], float) / largest).astype(int).tolist(),
            "span": _flags(row["in_span"]), "window": _flags(row["in_window"]),
        }
        for row in rows.to_dict("records")
    ]  # fmt: skip


def _flags(mask: Any) -> str:
    return "".join("1" if each else "0" for each in mask)
