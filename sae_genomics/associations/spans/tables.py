"""The tables about spans: feature_concepts, concept_baselines, concept_counts. artifacts.py has their columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics import artifacts
from sae_genomics.associations.layer import Layer
from sae_genomics.associations.spans.halves import SCORE
from sae_genomics.associations.spans.scores import ConceptScores, ConceptSizes, best_units, found
from sae_genomics.associations.spans.segments import Concepts


@dataclass(frozen=True)
class Kind:
    """One kind of units. name: as in the tables. unit_names: text [units]."""

    name: str
    scores: ConceptScores
    unit_names: npt.NDArray[np.object_]


def write_tables(layer: Layer, concepts: Concepts, sizes: ConceptSizes, kinds: list[Kind]) -> None:
    """Write the three tables. kinds: the features first."""
    settings = layer.run.config
    about = inference(layer, concepts, sizes)
    rows = feature_concepts(kinds[0].scores, concepts, sizes)
    layer.write(artifacts.FEATURE_CONCEPTS, rows, inference=about)
    baselines = pd.concat([concept_baselines(kind, concepts, sizes) for kind in kinds], ignore_index=True)
    layer.write(artifacts.CONCEPT_BASELINES, baselines, inference=about)
    counts = concept_counts(kinds, sizes, settings.associations.concept_f1, settings.validation.fdr)
    layer.write(artifacts.CONCEPT_COUNTS, counts, inference=about)


def write_empty_tables(layer: Layer) -> None:
    """Of a run whose input could hold spans and holds none."""
    for table in (artifacts.FEATURE_CONCEPTS, artifacts.CONCEPT_BASELINES, artifacts.CONCEPT_COUNTS):
        layer.write(table, table.schema.empty_table().to_pandas(), note="the input holds no spans")


def inference(layer: Layer, concepts: Concepts, sizes: ConceptSizes) -> artifacts.Inference:
    """What the statistics are about, with n filled in."""
    nouns, testable = layer.run.kind.nouns, sizes.testable()
    carriers = f"{sizes.items[testable, SCORE].min(initial=10**9) if testable.any() else 0:,} to "
    carriers += f"{sizes.items[testable, SCORE].max(initial=0):,}"
    unit = f"one {nouns.item} of the scoring half that carries the concept and where the unit is active"
    if concepts.group is not None:
        n_single = int((concepts.halves.single & testable).sum())
        unit += f"; one per {nouns.group}, but for {n_single:,} of {int(testable.sum()):,} concepts, which are in too few {nouns.groups}"
    n = (
        f"{carriers} {nouns.items} with the concept; false positives are counted in all {int(concepts.tells.sum()):,} "
        f"{nouns.items} with at least one {nouns.span}; {int((~concepts.tells).sum()):,} without any count for nothing"
    )
    return artifacts.Inference(unit, n, artifacts.OVER_SPANS.null)


def feature_concepts(scores: ConceptScores, concepts: Concepts, sizes: ConceptSizes) -> pd.DataFrame:
    """The rows of feature_concepts.parquet, by feature, then concept."""
    feature, concept = np.nonzero((scores.tp > 0) & (scores.chosen >= 0))
    return pd.DataFrame(
        {
            "feature": feature.astype(np.int32),
            **_scored(scores, feature, concept),
            **_sizes(concepts, sizes, concept),
            "odds_ratio": scores.odds_ratio[feature, concept],
            "p_value": scores.p[feature, concept],
            "q_value": scores.q[feature, concept],
        }
    )


def concept_baselines(kind: Kind, concepts: Concepts, sizes: ConceptSizes) -> pd.DataFrame:
    """The kind's rows of concept_baselines.parquet; a concept that no unit overlaps on the choosing half has none."""
    best = best_units(kind.scores)
    concept = np.flatnonzero(best >= 0)
    unit = best[concept]
    return pd.DataFrame(
        {
            "kind": kind.name,
            "unit": unit.astype(np.int32),
            "unit_name": kind.unit_names[unit],
            **_scored(kind.scores, unit, concept),
            **_sizes(concepts, sizes, concept),
            "q_value": kind.scores.q[unit, concept],
        }
    )


def concept_counts(kinds: list[Kind], sizes: ConceptSizes, least_f1: float, fdr: float) -> pd.DataFrame:
    """The rows of concept_counts.parquet."""
    rows = []
    for kind in kinds:
        scores, meets = kind.scores, found(kind.scores, least_f1, fdr)
        best = best_units(scores)
        concept = np.flatnonzero(best >= 0)
        unit = np.arange(len(scores.chosen))
        prefers = scores.chosen.argmax(axis=1) if scores.chosen.size else unit
        own_alone = kind.name in ("composition", "position")
        rows.append(
            {
                "kind": kind.name,
                "n_units": int(sizes.testable().sum()) if own_alone else len(unit),
                "n_units_with_concept": int(meets[unit, prefers].sum()) if scores.chosen.size else 0,
                "n_concepts_found": int(meets[best[concept], concept].sum()),
                "n_concepts_tested": int(sizes.testable().sum()),
                "criterion": f"F1 per residue of at least {least_f1:g} and q below {fdr:g}, both on the half that chose nothing",
            }
        )
    return pd.DataFrame(rows)


def _scored(scores: ConceptScores, unit: npt.NDArray[np.int64], concept: npt.NDArray[np.int64]) -> dict[str, object]:
    names = (
        "threshold",
        "precision_residue",
        "recall_residue",
        "f1_residue",
        "precision_span",
        "recall_span",
        "f1_span",
    )
    return {name: getattr(scores, name)[unit, concept] for name in names} | {
        "f1_residue_chosen": scores.chosen[unit, concept]
    }


def _sizes(concepts: Concepts, sizes: ConceptSizes, concept: npt.NDArray[np.int64]) -> dict[str, object]:
    by_group = (concepts.group is not None) & ~concepts.halves.single
    return {
        "concept": concepts.concept[concept],
        "name": concepts.name[concept],
        "n_spans": sizes.of(SCORE, sizes.n_spans)[concept],
        "n_residues": sizes.of(SCORE, sizes.residues)[concept],
        "n_proteins": sizes.items[concept, SCORE],
        "n_groups": sizes.groups[concept, SCORE],
        "split_by": np.where(by_group, "group", "item").astype(object)[concept],
    }
