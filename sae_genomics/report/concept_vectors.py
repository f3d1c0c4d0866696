"""Concept vectors over layers: which concepts a layer knows beyond chance and beyond composition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.summary import LayerSummary

PART = "concept_vectors"
TABLES = ("concept_vectors", "concept_localisation", "concept_windows", "concept_features", "concept_tcav")
BEYOND, CHANCE_ALONE, NOT_KNOWN, UNTESTED = "beyond", "composition", "chance", "untested"


@dataclass
class LayerConcepts:
    """One layer's tables, as far as they are there; an empty frame elsewhere."""

    vectors: pd.DataFrame
    """rows of concept_vectors.parquet; q_value is over all concepts and layers once `over_layers` was called"""
    localisation: pd.DataFrame
    windows: pd.DataFrame
    features: pd.DataFrame
    tcav: pd.DataFrame
    """rows of concept_tcav.parquet; its q_value likewise"""
    notes: dict[str, str] = field(default_factory=dict)
    """table -> why it has no rows"""
    thresholds: dict[str, Any] = field(default_factory=dict)
    """thresholds.json"""


def layer_concepts(results: LayerResults, thresholds: dict[str, Any] | None) -> LayerConcepts | None:
    """None where the stage left no vectors."""
    tables = [results.table(name) for name in TABLES]
    if tables[0] is None:
        return None
    vectors, located, windows, features, tcav = (pd.DataFrame() if table is None else table for table in tables)
    notes = {name: results.notes[name] for name in TABLES if name in results.notes}
    return LayerConcepts(vectors, located, windows, features, tcav, notes, thresholds or {})


def of(layers: list[LayerSummary]) -> list[tuple[int, LayerConcepts]]:
    """The layers that have concept vectors."""
    return [(each.layer, each.parts[PART]) for each in layers if PART in each.parts and len(each.parts[PART].vectors)]


def over_layers(layers: list[LayerSummary]) -> None:
    """q over all concepts and layers, in place of each layer's own: of the vectors, and of what they do to predictions."""
    known = [each for _, each in of(layers)]
    if not known:
        return
    for name in ("vectors", "tcav"):
        frames = [getattr(each, name) for each in known]
        p = [frame["p_value"].to_numpy(np.float64) if len(frame) else np.zeros(0) for frame in frames]
        q = np.split(benjamini_hochberg(np.concatenate([np.zeros(0), *p])), np.cumsum([len(each) for each in p])[:-1])
        for each, frame, values in zip(known, frames, q, strict=True):
            if len(frame):
                setattr(each, name, frame.assign(q_value=values))


def verdicts(vectors: pd.DataFrame, fdr: float) -> pd.Series:
    """What is known of each row: BEYOND, CHANCE_ALONE, NOT_KNOWN or UNTESTED."""
    tested = vectors["auroc"].notna() & vectors["q_value"].notna()
    known = tested & (vectors["q_value"] < fdr) & (vectors["auroc"] > 0.5)
    beyond = known & vectors["beyond_composition"].fillna(False).astype(bool)
    chosen = np.select([beyond, known, tested], [BEYOND, CHANCE_ALONE, NOT_KNOWN], UNTESTED)
    return pd.Series(chosen, index=vectors.index)


def best(layers: list[LayerSummary], fdr: float) -> pd.DataFrame:
    """One row per concept: that of its best layer, with `layer`, `verdict` and `n_layers` (in how many it is BEYOND).

    The best layer has the best verdict, and of these the highest AUROC. Rows stand by verdict, then AUROC.
    """
    order = {BEYOND: 0, CHANCE_ALONE: 1, NOT_KNOWN: 2, UNTESTED: 3}
    parts = [each.vectors.assign(layer=layer, verdict=verdicts(each.vectors, fdr)) for layer, each in of(layers)]
    if not parts:
        return pd.DataFrame()
    every = pd.concat(parts, ignore_index=True)
    every["order"] = every["verdict"].map(order)
    counted = every[every["verdict"] == BEYOND].groupby("concept").size()
    ranked = every.sort_values(["order", "auroc"], ascending=[True, False], kind="stable", na_position="last")
    chosen = ranked.drop_duplicates("concept").reset_index(drop=True)
    return chosen.assign(n_layers=chosen["concept"].map(counted).fillna(0).astype(int)).drop(columns="order")


def beside(known: list[tuple[int, LayerConcepts]], rows: pd.DataFrame, table: str) -> pd.DataFrame:
    """The rows of another table that belong to the concepts of `rows` in the layer shown there, in their order, with `layer`."""
    parts = []
    for layer, each in known:
        frame = getattr(each, table)
        wanted = rows.loc[rows["layer"] == layer, "concept"]
        if len(frame):
            parts.append(frame[frame["concept"].isin(wanted)].assign(layer=layer))
    if not parts:
        return pd.DataFrame()
    place = {concept: number for number, concept in enumerate(rows["concept"])}
    found = pd.concat(parts, ignore_index=True)
    return found.iloc[np.argsort(found["concept"].map(place).to_numpy(), kind="stable")].reset_index(drop=True)
