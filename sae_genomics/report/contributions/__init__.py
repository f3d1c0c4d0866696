"""Every contribution to the report, in the order of its sections."""

from __future__ import annotations

import importlib

from sae_genomics.report.contribution import Contribution
from sae_genomics.run import Run
from sae_genomics.stages import stages_of

# `module:NAME` of what training, validation and the accumulators of associations add. A stage of another package names its own.
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


def contributions(run: Run) -> list[Contribution]:
    """Those for a run's data kind, by order: the ones above, and what the run's stages name beside them."""
    named = [stage.contribution for stage in stages_of(run) if stage.contribution]
    found = [_imported(name) for name in dict.fromkeys([*NAMES, *named])]
    return sorted((each for each in found if each.applies(run.kind.name)), key=lambda each: each.order)


def _imported(name: str) -> Contribution:
    module, _, attribute = name.partition(":")
    contribution: Contribution = getattr(importlib.import_module(module), attribute)
    return contribution
