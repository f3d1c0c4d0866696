"""The tables on regulons of one layer, as the few numbers that text and figures are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sae_genomics.report.annotation import LABELS
from sae_genomics.validation.regulon_edges import HELD_OUT

REWIRED = "rewired"


@dataclass(frozen=True)
class Programmes:
    """One kind of units against factors. null: units found, one number per shuffle."""

    units: str
    database: str
    n_units: int
    n_found: int
    null: tuple[int, ...]
    n_factors: int
    n_pairs: int
    n_own: int
    expected_own: float
    n_activated: int
    n_signed: int
    expected_activated: float

    @property
    def label(self) -> str:
        return LABELS.get(self.units, self.units)

    @property
    def share(self) -> float:
        return self.n_found / self.n_units if self.n_units else float("nan")


@dataclass(frozen=True)
class Recovered:
    """Known pairs of held-out factors, beside rewired regulons: one number per rewiring."""

    units: str
    database: str
    strength: str
    n_factors: int
    n_edges: int
    auroc: float
    ratio: float
    rewired_auroc: tuple[float, ...]
    rewired_ratio: tuple[float, ...]

    @property
    def label(self) -> str:
        return LABELS.get(self.units, self.units)

    @property
    def p_value(self) -> float:
        """Share of rewirings, itself among them, with an AUROC as high."""
        return (1 + sum(each >= self.auroc for each in self.rewired_auroc)) / (1 + len(self.rewired_auroc))


def programmes(nulls: pd.DataFrame) -> list[Programmes]:
    """regulon_nulls.parquet, in its order."""
    found = []
    for (units, database), rows in nulls.groupby(["units", "database"], sort=False):
        own, shuffled = rows[rows["source"] == units].iloc[0], rows[rows["source"] != units]
        found.append(
            Programmes(
                str(units), str(database), int(own["n_units"]), int(own["n_found"]), tuple(shuffled["n_found"].astype(int)),
                int(own["n_factors"]), int(own["n_pairs"]), int(own["n_own_factor"]), float(own["expected_own_factor"]),
                int(own["n_activated"]), int(own["n_activated"] + own["n_repressed"]), float(own["expected_activated"]),
            )
        )  # fmt: skip
    return found


def recovered(edges: pd.DataFrame) -> list[Recovered]:
    """regulon_edges.parquet, held-out factors alone."""
    found = []
    for (units, database), rows in edges[edges["factors"] == HELD_OUT].groupby(["units", "database"], sort=False):
        own, rewired = rows[rows["source"] == units].iloc[0], rows[rows["source"] == REWIRED]
        found.append(
            Recovered(
                str(units), str(database), str(own["strength"]), int(own["n_factors"]), int(own["n_edges"]), float(own["auroc"]),
                float(own["early_precision_ratio"]), tuple(rewired["auroc"]), tuple(rewired["early_precision_ratio"]),
            )
        )  # fmt: skip
    return found


def mean(values: tuple[float, ...] | tuple[int, ...]) -> float:
    return float(np.mean(values)) if values else float("nan")
