"""One concept of a layer: fitted on training rows, scored on held-out rows, beside its nulls, its baselines and its confounds."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_genomics.concepts.concept import Bools, Ints
from sae_genomics.concepts.confounds import Property, ScoredRows, audit
from sae_genomics.concepts.crossval import Chosen, choose_strength, grouped_folds
from sae_genomics.concepts.nulls import Maker, Null, draw_null
from sae_genomics.concepts.rows import ConceptRows
from sae_genomics.concepts.scores import (
    GroupDraws,
    auroc_bounds,
    average_precisions,
    bounds,
    least_groups,
    weighted_aurocs,
)
from sae_genomics.concepts.solver import Fit, balanced, fit_logistic
from sae_genomics.concepts.space import Space
from sae_genomics.concepts.vectors import ConceptVector

if TYPE_CHECKING:
    from sae_genomics.concepts.section import ConceptsConfig

LEAST_ROWS = 2  # of groups, positive and negative, on each side of the split
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """A concept's row of concept_vectors.parquet (without q_value), and its rows of the other tables. vector: None where untested.
    null_vectors: name of a null -> unit vectors of its draws, float32 [draws, d]."""

    vector: ConceptVector | None
    row: dict[str, Any]
    nulls: list[dict[str, Any]] = field(default_factory=list)
    confounds: list[dict[str, Any]] = field(default_factory=list)
    null_vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a concept is measured with. placed: float32, all rows of the pool in the space's coordinates. makers: of nulls, by name.
    composition, position: float64 [the concept's rows, columns]; None where there is none. properties: of the concept's rows."""

    space: Space
    placed: npt.NDArray[np.float32]
    makers: dict[str, Maker]
    composition: Floats | None
    position: Floats | None
    properties: list[Property]


def measure(rows: ConceptRows, evidence: Evidence, settings: ConceptsConfig, seed: int) -> Measured:
    """Everything about one concept."""
    facts = _facts(rows)
    why = _untested(rows)
    if why is not None:
        return Measured(None, {**facts, "untested": why})
    seed = int(np.random.default_rng([seed, zlib.crc32(rows.concept.id.encode())]).integers(1 << 31))
    train, test = ~rows.heldout, rows.heldout
    x = evidence.placed[rows.row]
    fold = grouped_folds(rows.positive[train], rows.group[train], settings.folds, np.random.default_rng(seed))
    chosen, fit = _fitted(x[train], rows.positive[train], fold)
    vector = _vector(rows, fit, evidence.space)
    scores = fit.scores(x[test].astype(np.float64))[:, 0].astype(np.float64)
    draws = GroupDraws.of(rows.group[test], settings.bootstraps, seed)
    about, areas = _scored(scores, rows.positive[test], rows.group[test], draws)
    nulls = {
        name: draw_null(
            evidence.placed, make, about["auroc"], chosen.strength, settings.draws, settings.stop_after,
            np.random.default_rng([seed, number]),
        )
        for number, (name, make) in enumerate(evidence.makers.items())
    }  # fmt: skip
    baselines = {
        name: _baseline_scores(columns, rows, fold)
        for name, columns in (("composition", evidence.composition), ("position", evidence.position))
        if columns is not None and columns.shape[1]
    }
    n_groups = least_groups(rows.positive[test], rows.group[test])
    beyond = _beyond(baselines, rows.positive[test], draws, areas, n_groups)
    properties = [Property(each.name, each.values[test], each.is_category) for each in evidence.properties]
    properties += [Property(name, values, False) for name, values in baselines.items()]
    confounds = audit(
        rows.concept.id, ScoredRows(scores, rows.positive[test], rows.group[test], draws), properties, seed
    )
    row = {
        **facts,
        **about,
        **beyond,
        **_null_facts(nulls),
        **_strongest(confounds),
        "strength": chosen.strength,
        "stability": chosen.stability,
        "cosine_means": _cosine_means(x[train], rows.positive[train], fit),
        "untested": None,
    }
    null_vectors = {name: evidence.space.directions(null.weights) for name, null in nulls.items()}
    return Measured(vector, row, _null_rows(rows.concept.id, nulls), confounds, null_vectors)


def _facts(rows: ConceptRows) -> dict[str, Any]:
    concept, held = rows.concept, rows.heldout
    counts_once = rows.group if concept.kind == "gene_set" else rows.item
    return {
        "concept": concept.id,
        "kind": concept.kind,
        "name": concept.name,
        "level": concept.level,
        "n_positive": int(rows.positive.sum()),
        "n_negative": int((~rows.positive).sum()),
        "n_heldout_positive": int((rows.positive & held).sum()),
        "n_heldout_negative": int((~rows.positive & held).sum()),
        "n_items": len(np.unique(counts_once[rows.positive])),
        "n_groups": len(np.unique(rows.group[rows.positive & held])),
        "split_by": concept.split_by,
    }


def _untested(rows: ConceptRows) -> str | None:
    """Why the rows allow no fit or no score; None where they do."""
    for part, name in ((~rows.heldout, "training"), (rows.heldout, "held-out")):
        for side, which in ((rows.positive, "with the concept"), (~rows.positive, "without it")):
            n = len(np.unique(rows.group[part & side]))
            if n < LEAST_ROWS:
                return f"{name} {rows.concept.split_by}s {which}: {n}; {LEAST_ROWS} are needed"
    return None


def _fitted(x: npt.NDArray[np.float32], positive: Bools, fold: Ints) -> tuple[Chosen, Fit]:
    """The strength, and the fit with it on all training rows, in float64."""
    chosen = choose_strength(x, positive, fold)
    y = positive[:, None].astype(np.float64)
    return chosen, fit_logistic(x.astype(np.float64), y, balanced(y), np.array([chosen.strength]))


def _vector(rows: ConceptRows, fit: Fit, space: Space) -> ConceptVector:
    direction, offset = space.direction(fit.weights[:, 0])
    length = max(float(np.linalg.norm(direction)), 1e-30)
    concept = rows.concept
    return ConceptVector(
        concept.id, concept.kind, concept.name, (direction / length).astype(np.float32),
        (float(fit.intercepts[0]) + offset) / length, length,
    )  # fmt: skip


def _scored(scores: Floats, positive: Bools, group: Ints, draws: GroupDraws) -> tuple[dict[str, float], Floats]:
    """AUROC and average precision with their intervals, and the AUROC of all rows and of each draw."""
    weights = np.column_stack([np.ones(len(scores)), draws.weights])
    areas, precisions = weighted_aurocs(scores, positive, weights), average_precisions(scores, positive, weights)
    low, high = auroc_bounds(float(areas[0]), areas[1:], positive, group)
    lower, upper = bounds(precisions[1:], float(precisions[0]), least_groups(positive, group))
    lower, upper = max(lower, 0.0), min(upper, 1.0)
    return {
        "auroc": float(areas[0]), "auroc_low": low, "auroc_high": high,
        "auprc": float(precisions[0]), "auprc_low": lower, "auprc_high": upper, "prevalence": float(positive.mean()),
    }, areas  # fmt: skip


def _baseline_scores(columns: Floats, rows: ConceptRows, fold: Ints) -> Floats:
    """Held-out scores of a model of these columns, fitted as the concept is."""
    train = ~rows.heldout
    space = Space.of(columns[train])
    placed = space.place(columns)
    _, fit = _fitted(placed[train], rows.positive[train], fold)
    return fit.scores(placed[rows.heldout].astype(np.float64))[:, 0].astype(np.float64)


def _beyond(
    baselines: dict[str, Floats], positive: Bools, draws: GroupDraws, areas: Floats, n_groups: int
) -> dict[str, Any]:
    """The baselines' AUROCs, and what the concept has beyond composition, over the same draws of groups."""
    weights = np.column_stack([np.ones(len(positive)), draws.weights])
    of = {name: weighted_aurocs(scores, positive, weights) for name, scores in baselines.items()}
    missing = np.full(len(areas), np.nan)
    difference = areas - of.get("composition", missing)
    low, high = bounds(difference[1:], float(difference[0]), n_groups)
    return {
        "auroc_composition": float(of.get("composition", missing)[0]),
        "auroc_position": float(of.get("position", missing)[0]),
        "difference": float(difference[0]),
        "difference_low": low,
        "difference_high": high,
        "beyond_composition": bool(low > 0),
    }


def _null_facts(nulls: dict[str, Null]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, null in nulls.items():
        facts |= {f"n_{name}": len(null.areas), f"p_{name}": null.p}
        facts[f"null_{name}"] = float(null.areas.mean()) if len(null.areas) else np.nan
    values = [null.p for null in nulls.values()]
    return {**facts, "p_value": float(np.max(values)) if values else np.nan}


def _null_rows(concept: str, nulls: dict[str, Null]) -> list[dict[str, Any]]:
    return [
        {"concept": concept, "null": name, "draw": draw, "auroc": area}
        for name, null in nulls.items()
        for draw, area in enumerate(null.areas.tolist())
    ]


def _strongest(confounds: list[dict[str, Any]]) -> dict[str, Any]:
    for each in confounds:
        if each["strongest"]:
            folded = max(each["auroc"], 1 - each["auroc"])
            return {
                "strongest_confound": each["confound"],
                "auroc_confound": folded,
                "auroc_matched": each["auroc_matched"],
            }
    return {"strongest_confound": None, "auroc_confound": np.nan, "auroc_matched": np.nan}


def _cosine_means(x: npt.NDArray[np.float32], positive: Bools, fit: Fit) -> float:
    between = x[positive].mean(axis=0, dtype=np.float64) - x[~positive].mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(between) * np.linalg.norm(fit.weights[:, 0])
    return float(between @ fit.weights[:, 0] / lengths) if lengths > 0 else float("nan")
