"""The panel of concepts: annotated stretches that each feature finds, per residue and per stretch."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_genomics.report.best_features import least_f1
from sae_genomics.report.dashboard_arrays import Names, empty, in_rows, log10, shortened
from sae_genomics.report.dashboard_packing import Array
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings

_SCORES = ("precision_residue", "recall_residue", "f1_residue", "precision_span", "recall_span", "f1_span")
_EMPTY = empty((*_SCORES, "f1_residue_chosen", "threshold", "q_value", "n_spans", "n_proteins"), ("concept", "name"))


class ConceptsPanel(Panel):
    """Best concepts by F1 on the half that the thresholds were chosen on; the scores are of the other half."""

    script = "dashboard_concepts.js"
    lists_of = ("concepts",)

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self._concepts = Names()

    def add(self, layer: PanelLayer) -> None:
        concepts, features = layer.results.table("concepts"), layer.features["feature"]
        concepts = _EMPTY if concepts is None else concepts
        named = concepts["name"].where(concepts["name"].notna(), concepts["concept"])
        ordered = concepts.assign(named=named, order=-concepts["f1_residue_chosen"].astype(float).fillna(-1.0))
        entries, row = in_rows(ordered, layer.rows, ["order"], self.settings.entries(8, 4, 2))
        best = entries.drop_duplicates("feature").set_index("feature")
        self.add_columns(
            {
                "concept": self._concepts.codes(features.map(best["named"])),
                "concept_f1_residue": features.map(best["f1_residue"]).to_numpy(np.float32),
                "concept_f1_span": features.map(best["f1_span"]).to_numpy(np.float32),
                "concept_log10q": log10(features.map(best["q_value"])),
            }
        )
        scores: dict[str, Array] = {name: shortened(entries[name]) for name in (*_SCORES, "threshold")}
        self.lists["concepts"].add(
            len(layer),
            row,
            {
                "concept": self._concepts.codes(entries["named"]),
                **scores,
                "log10q": shortened(log10(entries["q_value"])),
                "n_spans": entries["n_spans"].to_numpy(np.uint32),
                "n_proteins": entries["n_proteins"].to_numpy(np.uint32),
            },
        )

    def meta(self) -> dict[str, Any]:
        return {"concepts": self._concepts.texts, "least_f1": least_f1(self.settings.config)}
