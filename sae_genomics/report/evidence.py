"""A feature's matches by source: which are worth showing, and how many features a source matches by chance."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.report.annotation import by_collection, known, mean

NOT_PASSING = 2  # terms of each feature and source that do not pass: what chance gives, for comparison
_LATER = 4  # a term that does not pass counts as so many: where room is short, what passes goes first


def passing(terms: pd.DataFrame, fdr: float) -> pd.Series:
    """Whether a term is found: among all sources, or among the terms of its own."""
    return terms[["q_matched", "q_source_matched"]].astype(float).min(axis=1) < fdr


def in_order(terms: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """The terms with a column `order`: every source's best before any source's second, what passes before what does not.

    The first n of a feature are those with `order` below n, or fewer where they do not pass.
    """
    terms = terms.assign(failing=~passing(terms, fdr))
    terms = terms.sort_values(["feature", "failing", "q_matched", "p_value"], kind="stable")
    rank = terms.groupby(["feature", "collection", "failing"], sort=False).cumcount()
    terms = terms[~terms["failing"] | (rank < NOT_PASSING)]
    terms = terms.assign(rank=rank).sort_values(["feature", "failing", "rank", "q_matched", "p_value"], kind="stable")
    order = terms.groupby("feature").cumcount()
    return terms.assign(order=order.where(~terms["failing"], _LATER * order))


def by_source(nulls: pd.DataFrame | None) -> list[dict[str, Any]]:
    """How many features each source matches, beside the shuffles among genes of the same expression; as JSON."""
    if nulls is None:
        return []
    found = []
    for name, one in by_collection(nulls).items():
        features = one.features
        chance = features.matched.n_annotated
        found.append(
            {
                "source": name,
                "n_units": features.n_units,
                "n_annotated": features.n_annotated,
                "share": known(features.share),
                "chance": known(mean(chance)),
                "chance_max": max(chance, default=None),
                "chance_share": known(mean(features.matched.share)),
            }
        )
    return found
