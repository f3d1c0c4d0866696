"""The tables on networks and regulons of one layer, as the few numbers that text and figures are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sae_genomics.report.annotation import LABELS

CHANNELS = ("physical", "experimental", "functional")  # what is least circular first
DRAWN = 6  # features whose networks are drawn


@dataclass(frozen=True)
class Beside:
    """One kind of units beside chance. null: one number of units per repeat."""

    units: str
    database: str
    channel: str
    n_units: int
    n_found: int
    null: tuple[int, ...]
    observed: float
    expected: float

    @property
    def label(self) -> str:
        return LABELS.get(self.units, self.units)

    @property
    def share(self) -> float:
        return self.n_found / self.n_units if self.n_units else float("nan")

    @property
    def null_share(self) -> tuple[float, ...]:
        return tuple(each / self.n_units for each in self.null) if self.n_units else ()

    @property
    def above_chance(self) -> bool:
        """More units than in any repeat of the null."""
        return bool(self.null) and self.n_found > max(self.null)


@dataclass(frozen=True)
class Drawing:
    """A feature whose network is drawn. edges: gene_a, gene_b, score."""

    layer: int
    feature: int
    database: str
    channel: str
    n_edges: int
    expected: float
    q_value: float
    edges: pd.DataFrame


def beside_chance(nulls: pd.DataFrame) -> list[Beside]:
    """network_nulls.parquet, by channel, then units."""
    found = []
    for (database, channel), rows in nulls.groupby(["database", "channel"], sort=False):
        for units in rows["units"].unique():
            mine = rows[rows["units"] == units]
            own, drawn = mine[mine["source"] == units].iloc[0], mine[mine["source"] != units]
            found.append(
                Beside(
                    str(units), str(database), str(channel), int(own["n_units"]), int(own["n_found"]),
                    tuple(drawn["n_found"].astype(int)), float(own["n_edges"]), float(own["n_expected"]),
                )
            )  # fmt: skip
    return sorted(found, key=lambda each: _order(each.channel))


def _order(channel: str) -> int:
    return CHANNELS.index(channel) if channel in CHANNELS else len(CHANNELS)


def headline_channel(found: list[Beside]) -> str:
    """The channel that rests least on what the features themselves rest on; empty without any."""
    return min((each.channel for each in found), key=_order, default="")


def drawings(layer: int, rows: pd.DataFrame, edges: pd.DataFrame, channel: str, fdr: float) -> list[Drawing]:
    """The features with the smallest p, then the highest ratio, in one channel."""
    best = rows[(rows["channel"] == channel) & (rows["q_value"] < fdr)]
    best = best.sort_values(["p_value", "ratio"], ascending=[True, False], kind="stable").head(DRAWN)
    mine = edges[edges["channel"] == channel]
    return [
        Drawing(
            layer, int(row.feature), str(row.database), channel, int(row.n_edges), float(row.expected_matched), float(row.q_value),
            mine[(mine["feature"] == row.feature) & (mine["database"] == row.database)],
        )
        for row in best.itertuples()
    ]  # fmt: skip


def positions(n: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where to draw n genes so that partners stand close: float64 [n, 2], within -1 and 1.

    Fruchterman and Reingold 1991, Softw. Pract. Exp. 21:1129: genes push one another away, pairs pull together, from a circle on.
    """
    if not n:
        return np.zeros((0, 2))
    angle = 2 * np.pi * np.arange(n) / n
    place = np.column_stack([np.cos(angle), np.sin(angle)])
    best = np.sqrt(4.0 / n)
    for step in np.linspace(0.2, 0.005, 150):
        apart = place[:, None] - place[None, :]
        distance = np.maximum(np.sqrt((apart**2).sum(axis=2)), 1e-3)
        force = (apart * (best**2 / distance**2)[:, :, None]).sum(axis=1) - 1.2 * place  # and a pull to the middle
        pull = apart[first, second] * (distance[first, second] / best)[:, None]
        np.add.at(force, first, -pull)
        np.add.at(force, second, pull)
        place = place + force * (step / np.maximum(np.sqrt((force**2).sum(axis=1)), 1e-9))[:, None]
    place = place - place.mean(axis=0)
    return place / max(float(np.abs(place).max()), 1e-9)
