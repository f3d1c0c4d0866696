"""Every contribution to the report, in the order of its sections."""

from __future__ import annotations

import importlib

from sae_genomics.report.contribution import Contribution

# `module:NAME` of a contribution. A stage names its own, and an accumulator of one.
NAMES = (
    "sae_genomics.report.contributions.training:TRAINING",
    "sae_genomics.report.contributions.features:BEST_FEATURES",
    "sae_genomics.report.contributions.units:UNITS",
    "sae_genomics.report.contributions.labels:LABELS",
    "sae_genomics.report.contributions.concepts:CONCEPTS",
    "sae_genomics.report.contributions.examples:EXAMPLES",
    "sae_genomics.report.contributions.items:ITEMS",
    "sae_genomics.report.contributions.gene_sets:GENE_SETS",
)


def contributions(kind: str, names: tuple[str, ...] = NAMES) -> list[Contribution]:
    """Those for a data kind, by order. names: `module:NAME` of each."""
    found: list[Contribution] = []
    for each in names:
        module, _, name = each.partition(":")
        found.append(getattr(importlib.import_module(module), name))
    return sorted((each for each in found if each.applies(kind)), key=lambda each: each.order)
