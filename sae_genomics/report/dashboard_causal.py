"""The panel of interventions: what taking a feature out changes, beside the four nulls, and its dose-response curve."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_genomics.report.causal import P_NULLS, causal
from sae_genomics.report.dashboard_arrays import Names, empty, in_rows, log10, shortened
from sae_genomics.report.dashboard_packing import Array
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings

_VALUES = ("effect_own", "effect_matched", "specificity", "specificity_low", "specificity_high", *P_NULLS)
_EFFECTS = empty((*_VALUES, "q_value", "n_items", "masked"), ("outcome",))
_DOSES = empty(("dose", "own", "matched", "off_target"), ())
_ORDER = {"token": 0, "from_item": 1, "embedding": 2}


class CausalPanel(Panel):
    """Every outcome of the features that were edited; scores of all."""

    script = "dashboard_causal.js"
    lists_of = ("causal", "doses")

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self._outcomes, self._roles = Names(), Names()

    def add(self, layer: PanelLayer) -> None:
        found, features = causal(layer.results), layer.features["feature"]
        effects = _EFFECTS if found is None or found.effects.empty else found.effects
        main = effects.head(0) if found is None else found.main
        best = main.drop_duplicates("feature").set_index("feature") if len(main) else _EFFECTS.set_index("feature")
        scores = None if found is None or found.scores.empty else found.scores.set_index("feature")
        missing = np.full(len(layer), np.nan, np.float32)
        self.add_columns(
            {
                "causal_specificity": features.map(best["specificity"]).to_numpy(np.float32),
                "causal_log10q": log10(features.map(best["q_value"])),
                "reads": missing if scores is None else features.map(scores["reads"]).to_numpy(np.float32),
                "reads_random": missing
                if scores is None
                else features.map(scores["reads_random"]).to_numpy(np.float32),
                "reads_log10q": missing if scores is None else log10(features.map(scores["q_reads"])),
                "causal_role": np.full(len(layer), -1, np.int32)
                if scores is None
                else self._roles.codes(features.map(scores["role"])),
            }
        )
        ordered = effects.assign(
            order=effects["outcome"].map(_ORDER).astype(float), hidden=1 - effects["masked"].astype(float)
        )
        entries, row = in_rows(ordered, layer.rows, ["order", "hidden"])
        values: dict[str, Array] = {name: shortened(entries[name]) for name in _VALUES}
        self.lists["causal"].add(
            len(layer),
            row,
            {
                "outcome": self._outcomes.codes(entries["outcome"]),
                "masked": entries["masked"].astype(float).to_numpy(np.uint8),
                **values,
                "log10q": shortened(log10(entries["q_value"])),
                "n_items": entries["n_items"].astype(float).to_numpy(np.uint32),
            },
        )
        doses = _DOSES if found is None or found.doses.empty else found.doses
        curve, row = in_rows(doses, layer.rows, ["dose"])
        self.lists["doses"].add(
            len(layer),
            row,
            {name: shortened(curve[name].astype(float)) for name in ("dose", "own", "matched", "off_target")},
        )

    def meta(self) -> dict[str, Any]:
        return {
            "causal_outcomes": self._outcomes.texts,
            "causal_roles": self._roles.texts,
            "causal_nulls": list(P_NULLS.values()),
            "causal_ablation": self.settings.config.causal.ablation,
        }
