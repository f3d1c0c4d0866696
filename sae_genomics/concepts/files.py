"""Which runs have the stage concepts, and what it leaves for a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.artifacts import CONCEPT_CONFOUNDS, CONCEPT_NULLS, CONCEPT_VECTORS
from sae_genomics.concepts.vectors import FACTS_FILE, VECTORS_FILE
from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run

CONCEPTS_FILES = (VECTORS_FILE, FACTS_FILE, CONCEPT_VECTORS.file, CONCEPT_NULLS.file, CONCEPT_CONFOUNDS.file)


def is_enabled(run: Run) -> bool:
    """Whether the run has the stage."""
    return run.config.concepts.enabled


def concepts_files(run: Run, task: int) -> Files:
    """Its tables."""
    layer = run.layers[task]
    return {run.layer_results(layer) / name: {"layer": layer} for name in CONCEPTS_FILES}
