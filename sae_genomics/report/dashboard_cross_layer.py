"""The panel of features over layers: what becomes of a feature, its matches in other layers, and the module that it is in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.report.cross_layer import above_null, module_name
from sae_genomics.report.dashboard_arrays import Names, in_rows, shortened
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings

_OWN = ("layer_a", "feature_a", "layer_b", "feature_b")


class CrossLayerPanel(Panel):
    """Reads tables of the run, a layer's part at a time."""

    script = "dashboard_cross_layer.js"
    lists_of = ("partners",)

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self._fates, self._modules = Names(), Names()
        self._about: list[dict[str, Any]] = []
        self._most = settings.entries(16, 8, 4)
        self._partners = self._both_ways()

    def _both_ways(self) -> pd.DataFrame:
        """One row per feature and partner in another layer: layer, feature, other_layer, other_feature, correlation, mutual."""
        matches = self.settings.run_results.table("matches")
        names = ["layer", "feature", "other_layer", "other_feature"]
        if matches is None:
            return pd.DataFrame({name: pd.Series(dtype=np.int64) for name in names}).assign(
                correlation=0.0, mutual=False
            )
        keep = [*_OWN, "correlation", "mutual"]
        there = matches[keep].rename(columns=dict(zip(_OWN, names, strict=True)))
        back = matches[keep].rename(columns=dict(zip(_OWN, (*names[2:], *names[:2]), strict=True)))
        return pd.concat([there, back], ignore_index=True)

    def add(self, layer: PanelLayer) -> None:
        number, features = layer.results.layer, layer.features["feature"]
        mine = self._partners[self._partners["layer"] == number]
        strongest = mine.assign(order=-mine["correlation"])
        entries, row = in_rows(strongest, layer.rows, ["order"], self._most)
        self.lists["partners"].add(
            len(layer),
            row,
            {
                "layer": entries["other_layer"].to_numpy(np.uint16),
                "feature": entries["other_feature"].to_numpy(np.uint32),
                "correlation": shortened(entries["correlation"]),
                "mutual": entries["mutual"].to_numpy(np.uint8),
            },
        )
        self.add_columns(
            {
                "fate": self._fates.codes(features.map(self._of("fates", number, "fate"))),
                "before": self._fates.codes(features.map(self._of("fates", number, "before"))),
                "after": self._fates.codes(features.map(self._of("fates", number, "after"))),
                "module": self._modules.codes(features.map(self._module_keys(number))),
            }
        )

    def _of(self, name: str, layer: int, column: str) -> pd.Series:
        """A column of a table of the run by feature, of one layer."""
        table = self.settings.run_results.table(name)
        if table is None:
            return pd.Series(dtype=object)
        rows = table[table["layer"] == layer].drop_duplicates("feature")
        return rows.set_index("feature")[column]

    def _module_keys(self, layer: int) -> pd.Series:
        return self._of("modules", layer, "module").map(lambda module: f"{layer}.{int(module)}")

    def meta(self) -> dict[str, Any]:
        passing = above_null(self.settings.run_results)
        known = (
            {f"{int(row['layer'])}.{int(row['module'])}": row for _, row in passing.iterrows()}
            if passing is not None
            else {}
        )
        about = [_about(known[key]) if key in known else {"name": key} for key in self._modules.texts]
        return {"fates": self._fates.texts, "modules": [each["name"] for each in about], "module_facts": about}


def _about(row: Any) -> dict[str, Any]:
    """A module for the page."""
    return {
        "name": f"{module_name(row)} (layer {int(row['layer'])}, module {int(row['module'])})",
        "size": int(row["size"]),
        "units": str(row["units"] or ""),
        "score": round(float(row["score"]), 2),
        "null_max": round(float(row["null_max"]), 2),
        "q": float(row["q_value"]),
    }
