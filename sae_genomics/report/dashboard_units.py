"""The panel of units: the genes, or amino acids, that each feature fires on."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_genomics.report import term_links
from sae_genomics.report.dashboard_arrays import Names, empty, in_rows
from sae_genomics.report.dashboard_packing import Logs, Steps
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings

_EMPTY = empty(("score", "specificity", "firing_rate", "rank_score", "rank_specificity"), ("unit_id", "unit_name"))


class UnitsPanel(Panel):
    """Best units by specificity and by score."""

    script = "dashboard_units.js"
    lists_of = ("units",)

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self.n_listed = settings.entries(settings.config.report.dashboard_genes, 6, 4)
        self._ids, self._names = Names(), Names()
        self._name_of: dict[int, int] = {}
        self.lists["units"].encodings = {"score": Logs(500), "specificity": Steps(0.01), "rate": Logs(100)}

    def add(self, layer: PanelLayer) -> None:
        units = layer.results.table("units")
        units = _EMPTY if units is None else units
        near = (units["rank_specificity"] <= self.n_listed) | (units["rank_score"] <= self.n_listed)
        entries, row = in_rows(units[near], layer.rows, ["rank_specificity"])
        code, name = self._ids.codes(entries["unit_id"]), self._names.codes(entries["unit_name"])
        self._name_of.update(zip(code.tolist(), name.tolist(), strict=True))
        self.add_columns({"top_unit": self._names.codes(layer.features["top_unit"])})
        self.lists["units"].add(
            len(layer),
            row,
            {
                "unit": code,
                "score": entries["score"].to_numpy(np.float32),
                "specificity": entries["specificity"].to_numpy(np.float32),
                "rate": entries["firing_rate"].to_numpy(np.float32),
                "rank_score": np.minimum(entries["rank_score"].to_numpy(), 255).astype(np.uint8),
                # A unit seen in too few tokens has no specificity, and comes last.
                "rank_specificity": entries["rank_specificity"].fillna(255).clip(upper=255).astype(np.uint8).to_numpy(),
            },
        )

    def meta(self) -> dict[str, Any]:
        return {
            "gene_links": term_links.of_genes() if self.settings.config.data.kind == "cells" else [],
            "units_listed": self.n_listed,
            "unit_ids": self._ids.texts,
            "unit_names": self._names.texts,
            "unit_name": [self._name_of.get(code, -1) for code in range(len(self._ids.texts))],
        }
