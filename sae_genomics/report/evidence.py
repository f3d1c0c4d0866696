"""A feature's matches by source: which are worth showing, and how many features a source matches by chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from sae_genomics.config import RunConfig
from sae_genomics.report.annotation import Annotation, annotation
from sae_genomics.report.reading import smallest
from sae_genomics.validation.nulls import ALL

OF_A_SOURCE = 8  # terms read of each feature and source
NOT_PASSING = 2  # terms of each feature and source that do not pass: what chance gives, for comparison


def read_terms(path: Path, config: RunConfig) -> pd.DataFrame:
    """The likeliest terms of every feature and source, by feature and p."""
    return smallest(path, ("p_value",), OF_A_SOURCE, within=("collection",))


def passing(terms: pd.DataFrame, fdr: float) -> pd.Series:
    """Whether a term is found: among all sources, or among the terms of its own."""
    return terms[["q_matched", "q_source_matched"]].astype(float).min(axis=1) < fdr


def in_order(terms: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """The terms with a column `order`: every source's best before any source's second, what passes before what does not."""
    terms = terms.assign(failing=~passing(terms, fdr))
    terms = terms.sort_values(["feature", "failing", "q_matched", "p_value"], kind="stable")
    rank = terms.groupby(["feature", "collection", "failing"], sort=False).cumcount()
    terms = terms[~terms["failing"] | (rank < NOT_PASSING)]
    terms = terms.assign(rank=rank).sort_values(["feature", "failing", "rank", "q_matched", "p_value"], kind="stable")
    return terms.assign(order=terms.groupby("feature").cumcount())


def by_source(nulls: pd.DataFrame | None) -> list[dict[str, Any]]:
    """How many features each source matches, beside the shuffles among genes of the same expression; as JSON."""
    if nulls is None:
        return []
    found: list[dict[str, Any]] = []
    for name, rows in nulls[nulls["collection"] != ALL].groupby("collection", sort=False):
        one: Annotation | None = annotation(rows.assign(collection=ALL))
        if one is not None:
            facts = one.facts[0]
            matched = facts["matched"]
            found.append(
                {"source": str(name), "n_units": facts["n_units"], "n_annotated": facts["n_annotated"], "share": facts["share"],
                 "chance": matched["n_annotated"], "chance_max": matched["n_annotated_max"], "chance_share": matched["share"]}
            )  # fmt: skip
    return found
