"""The table of features that every associated layer has, and the best of them."""

from __future__ import annotations

from sae_genomics.artifacts import FEATURES
from sae_genomics.report.best_features import by_concepts, by_terms, least_f1
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents, Example
from sae_genomics.report.contribution import Contribution
from sae_genomics.report.reading import Reading
from sae_genomics.report.section_best import best_features
from sae_genomics.report.summary import LayerSummary


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    if results.table("features") is None:
        return
    fdr, n_best = contents.config.validation.fdr, contents.config.report.top_features
    if contents.wording.kind == "cells":
        summary.best = by_terms(results, fdr, n_best)
    else:
        summary.best = by_concepts(results, fdr, least_f1(contents.config), n_best)


def _example(contents: Contents) -> Example | None:
    """The first of the best features."""
    for each in contents.layers:
        if each.best is not None and len(each.best):
            feature = int(each.best["feature"].iloc[0])
            return Example(each.layer, feature, f"feature {feature} of layer {each.layer}")
    return None


BEST_FEATURES = Contribution(
    name="best features",
    order=60,
    tables=(Reading("features", (FEATURES,)),),
    take_layer=_take,
    section=best_features,
    example=_example,
)
