"""Which runs have the stage concepts, and what it leaves for a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.artifacts import (
    CONCEPT_CONFOUNDS,
    CONCEPT_FEATURES,
    CONCEPT_LOCALISATION,
    CONCEPT_NULLS,
    CONCEPT_TCAV,
    CONCEPT_VECTORS,
    CONCEPT_WINDOWS,
)
from sae_genomics.concepts.vectors import FACTS_FILE, VECTORS_FILE
from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run

CONCEPTS_FILES = (VECTORS_FILE, FACTS_FILE, CONCEPT_VECTORS.file, CONCEPT_NULLS.file, CONCEPT_CONFOUNDS.file)
THRESHOLDS_FILE = "thresholds.json"
USES_FILES = (
    THRESHOLDS_FILE, CONCEPT_LOCALISATION.file, CONCEPT_WINDOWS.file, CONCEPT_FEATURES.file, CONCEPT_TCAV.file,
)  # fmt: skip


def is_enabled(run: Run) -> bool:
    """Whether the run has the stage."""
    return run.config.concepts.enabled


def concepts_files(run: Run, task: int) -> Files:
    """Its tables."""
    layer = run.layers[task]
    return {run.layer_results(layer) / name: {"layer": layer} for name in (*CONCEPTS_FILES, *USES_FILES)}
