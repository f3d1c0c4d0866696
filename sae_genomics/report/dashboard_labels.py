"""The panel of labels: the cell types, or families, that each feature tells apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_genomics.report.dashboard_arrays import Names, empty, in_rows, log10
from sae_genomics.report.dashboard_packing import Steps
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings
from sae_genomics.report.groups import groups_of_labels

MATCHING_AUROC = 0.7  # a search for a label finds features that reach this for it
_EMPTY = empty(("auroc", "effect_size", "q_value", "n_items"), ("label",))


class LabelsPanel(Panel):
    """Best labels by held-out AUROC."""

    script = "dashboard_labels.js"
    lists_of = ("labels",)

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self._labels = Names()
        self._groups: dict[str, int] = {}
        self.lists["labels"].encodings = {
            "auroc": Steps(0.0005, border=MATCHING_AUROC), "effect": Steps(0.01), "log10q": settings.of_log10q,
        }  # fmt: skip

    def add(self, layer: PanelLayer) -> None:
        tests = layer.results.table("labels")
        self._groups |= groups_of_labels(tests)
        tests = _EMPTY if tests is None else tests
        ordered = tests.assign(order=-tests["auroc"].astype(float).fillna(-1.0))
        entries, row = in_rows(ordered, layer.rows, ["order"], self.settings.entries(8, 4, 2))
        self.add_columns(
            {
                "label": self._labels.codes(layer.features["best_label"]),
                "label_log10q": log10(layer.features["best_label_q_value"]),
                "auroc": layer.features["best_label_auroc"].to_numpy(np.float32),
            }
        )
        self.lists["labels"].add(
            len(layer),
            row,
            {
                "label": self._labels.codes(entries["label"]),
                "auroc": entries["auroc"].to_numpy(np.float32),
                "effect": entries["effect_size"].to_numpy(np.float32),
                "log10q": log10(entries["q_value"]),
                "n_items": entries["n_items"].to_numpy(np.uint32),
            },
        )

    def meta(self) -> dict[str, Any]:
        names = self._labels.texts
        return {
            "labels": names,
            "label_groups": [self._groups.get(name) for name in names] if self._groups else None,
            "matching_auroc": MATCHING_AUROC,
        }
