"""Which runs have the stage validate, and what it leaves for a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.artifacts import (
    ANNOTATION_NULLS,
    FEATURE_NAMES,
    FEATURE_NETWORK,
    FEATURE_REGULONS,
    FEATURE_TERMS,
    NETWORK_EDGES,
    NETWORK_NULLS,
    REGULON_EDGES,
    REGULON_NULLS,
)
from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run

VALIDATE_FILES = (
    FEATURE_TERMS.file, ANNOTATION_NULLS.file, FEATURE_NAMES.file,
    FEATURE_NETWORK.file, NETWORK_EDGES.file, NETWORK_NULLS.file,
    FEATURE_REGULONS.file, REGULON_NULLS.file, REGULON_EDGES.file,
)  # fmt: skip


def has_gene_sets(run: Run) -> bool:
    """Gene sets say something about genes alone."""
    return run.kind.units_are_genes


def validate_files(run: Run, task: int) -> Files:
    """All tables."""
    layer = run.layers[task]
    return {run.layer_results(layer) / name: {"layer": layer} for name in VALIDATE_FILES}
