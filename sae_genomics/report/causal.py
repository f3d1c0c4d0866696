"""What the stage causal found in one layer, as section, figures and panel take it. Any part may be missing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from sae_genomics.report.collect import LayerResults
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording

LEVEL = 0.05
P_NULLS = {
    "p_direction": "random directions",
    "p_feature": "random features",
    "p_permuted": "other tokens",
    "p_targets": "random targets",
}
HIDDEN, VISIBLE = True, False
METHODS = {"means": "difference of means", "features": "features", "concept": "concept vector"}
EDITS = {"knock_out": "deleted", "over_express": "raised"}


@dataclass(frozen=True)
class Causal:
    """One layer. Frames are the tables' rows; empty where a table is not there."""

    effects: pd.DataFrame = field(default_factory=pd.DataFrame)
    nulls: pd.DataFrame = field(default_factory=pd.DataFrame)
    """per outcome, masked and null: low and high, the 2.5 and 97.5 % quantiles of the specificity"""
    screen: float | None = None
    """rank correlation of first-order and exact effects"""
    doses: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    steering: pd.DataFrame = field(default_factory=pd.DataFrame)
    genes: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: dict[str, str] = field(default_factory=dict)
    """name of a table -> why it has no rows"""

    def of(self, outcome: str, masked: bool) -> pd.DataFrame:
        """The effects of one outcome."""
        if self.effects.empty:
            return self.effects
        return self.effects[(self.effects["outcome"] == outcome) & (self.effects["masked"].astype(bool) == masked)]

    @property
    def main(self) -> pd.DataFrame:
        """The effects that the text is about: hidden tokens, else visible ones, else whatever there is."""
        for outcome, masked in (("token", True), ("token", False), ("from_item", False), ("embedding", False)):
            found = self.of(outcome, masked)
            if len(found) and found["q_value"].notna().any():
                return found
        return self.effects.head(0)

    @property
    def n_tested(self) -> int:
        return int(self.main["q_value"].notna().sum()) if len(self.main) else 0

    @property
    def n_specific(self) -> int:
        return int((self.main["q_value"] <= LEVEL).sum()) if len(self.main) else 0


def causal(results: LayerResults) -> Causal | None:
    """From a layer's tables; None where none of them is there."""
    tables = {
        name: results.table(f"causal_{name}")
        for name in ("features", "nulls", "screen", "dose", "curves", "reads_writes", "steering", "genes")
    }
    if all(table is None for table in tables.values()):
        return None
    known = {name: pd.DataFrame() if table is None else table for name, table in tables.items()}
    names = {f"causal_{name}": name for name in tables}
    notes = {names[name]: note for name, note in results.notes.items() if name in names}
    return Causal(
        known["features"], _ranges(known["nulls"]), _rank_correlation(known["screen"]), known["dose"], known["curves"],
        known["reads_writes"], known["steering"], known["genes"], notes,
    )  # fmt: skip


def of(layers: list[LayerSummary]) -> list[tuple[int, Causal]]:
    """(layer, what was found) of the layers that have something."""
    found = [(each.layer, each.parts.get("causal")) for each in layers]
    return [(layer, each) for layer, each in found if each is not None]


def _ranges(nulls: pd.DataFrame) -> pd.DataFrame:
    if nulls.empty:
        return nulls
    by = nulls.groupby(["outcome", "masked", "null"], sort=False)["specificity"]
    return pd.DataFrame({"low": by.quantile(0.025), "high": by.quantile(0.975)}).reset_index()


def _rank_correlation(screen: pd.DataFrame) -> float | None:
    if screen.empty:
        return None
    tested = screen[screen["exact"].notna()]
    if len(tested) < 4 or tested["exact"].nunique() < 2 or tested["first_order"].nunique() < 2:
        return None
    return float(tested["first_order"].rank().corr(tested["exact"].rank()))


def outcome_name(outcome: str, masked: bool, wording: Wording) -> str:
    """What a reader is told an outcome is."""
    nouns = wording.nouns
    if outcome == "embedding":
        name = f"the {nouns.item}'s embedding"
    elif outcome == "from_item":
        name = f"expression, from the {nouns.item}'s embedding"
    elif wording.kind == "cells":
        name = "expression, from the token"
    else:
        name = f"distribution at each {nouns.token}"
    return f"{name}, {nouns.tokens} hidden" if masked else name


def dose_curves(found: Causal) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Feature -> doses, and effect on its own targets less that on matched ones."""
    if found.doses.empty:
        return {}
    ordered = found.doses.sort_values(["feature", "dose"], kind="stable")
    return {
        int(feature): (rows["dose"].to_numpy(float), (rows["own"] - rows["matched"].fillna(0)).to_numpy(float))
        for feature, rows in ordered.groupby("feature", sort=True)
    }
