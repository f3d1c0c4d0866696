"""What a layer's features find of the annotated concepts, beside raw neurons, random directions, composition and position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sae_genomics.report.markdown import count, listing
from sae_genomics.report.summary import LayerSummary

FEATURE = "feature"
UNITS = {
    FEATURE: "SAE features",
    "neuron": "raw neurons",
    "random": "random directions",
    "composition": "composition alone",
    "position": "position alone",
}


@dataclass(frozen=True)
class Found:
    """How many concepts one kind of units finds."""

    n_units: int
    n_units_with_concept: int
    n_concepts: int
    n_tested: int


@dataclass(frozen=True)
class Concepts:
    """The concepts of one layer."""

    found: dict[str, Found]
    """kind of units -> what it finds, features first"""
    criterion: str
    """when a concept counts as found"""
    best: pd.DataFrame
    """rows of concept_baselines.parquet; `name` is never null"""

    @property
    def beats_all(self) -> bool:
        """Whether features find more concepts than every other kind of units."""
        others = [each.n_concepts for kind, each in self.found.items() if kind != FEATURE]
        return bool(others) and self.found[FEATURE].n_concepts > max(others)

    def headline(self, layer: int) -> str:
        """`Layer 2: 41 of 512 features find 12 of 14 concepts; raw neurons find 6, random directions 2.` Plain text."""
        features = self.found[FEATURE]
        if features.n_concepts:
            n_features = f"{count(features.n_units_with_concept)} of {count(features.n_units)} features"
            find = "finds" if features.n_units_with_concept == 1 else "find"
            text = f"Layer {layer}: {n_features} {find} {count(features.n_concepts)} of {count(features.n_tested)} concepts"
        else:
            text = f"Layer {layer}: none of {count(features.n_units)} features finds any of {count(features.n_tested)} concepts"
        others = [(kind, each) for kind, each in self.found.items() if kind != FEATURE]
        told = [f"{label(kind)} {count(each.n_concepts)}" for kind, each in others]
        return f"{text}; {listing(told)}." if told else f"{text}."


def label(kind: str) -> str:
    """What a reader is told a kind of units is."""
    return UNITS.get(kind, kind)


def concepts(counts: pd.DataFrame | None, baselines: pd.DataFrame | None) -> Concepts | None:
    """From concept_counts.parquet and concept_baselines.parquet; None where no concept was tested."""
    if counts is None or counts.empty:
        return None
    rows = {str(row["kind"]): row for row in counts.to_dict("records")}
    if FEATURE not in rows or not rows[FEATURE]["n_concepts_tested"]:
        return None
    kinds = [kind for kind in UNITS if kind in rows] + [kind for kind in rows if kind not in UNITS]
    names = ("n_units", "n_units_with_concept", "n_concepts_found", "n_concepts_tested")
    found = {kind: Found(*(int(rows[kind][name]) for name in names)) for kind in kinds}
    best = counts.head(0) if baselines is None else baselines.copy()
    if "concept" in best:
        best["name"] = best["name"].where(best["name"].notna(), best["concept"])
    return Concepts(found, str(rows[FEATURE]["criterion"] or ""), best)


def of(layers: list[LayerSummary]) -> list[tuple[int, Concepts]]:
    """(layer, its concepts) of the layers that have some."""
    found = [(each.layer, each.parts.get("concepts")) for each in layers]
    return [(layer, each) for layer, each in found if each is not None]


def over_layers(layers: list[LayerSummary]) -> pd.DataFrame | None:
    """Per concept and kind of units the row of the layer with the highest F1 on the half that was chosen on, with `layer`.

    Choosing there keeps the scores of the other half honest, however many layers there are. Features with the highest
    F1 per residue come first. None where no layer has any.
    """
    parts = [each.best.assign(layer=layer) for layer, each in of(layers) if len(each.best)]
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True)
    order = np.lexsort((table["layer"], -table["f1_residue_chosen"].fillna(-np.inf).to_numpy()))
    best = table.iloc[order].drop_duplicates(["concept", "kind"])
    rank = best[best["kind"] == FEATURE].set_index("concept")["f1_residue"].fillna(-1.0)
    return best.assign(rank=-best["concept"].map(rank).fillna(-1.0)).sort_values(
        ["rank", "concept"], kind="stable", ignore_index=True
    )
