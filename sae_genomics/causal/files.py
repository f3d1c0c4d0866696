"""Which runs have the stage causal, and what it leaves for a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.artifacts.causal import CAUSAL_SUMMARY, CAUSAL_TABLES
from sae_genomics.artifacts.steering import STEERED_FILE, USES_TABLES
from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run


def is_enabled(run: Run) -> bool:
    """Whether the run has the stage."""
    return run.config.causal.enabled


def causal_files(run: Run, task: int) -> Files:
    """Its tables."""
    layer = run.layers[task]
    names = (*(table.file for table in (*CAUSAL_TABLES, *USES_TABLES)), CAUSAL_SUMMARY, STEERED_FILE)
    return {run.layer_results(layer) / name: {"layer": layer} for name in names}
