"""Which runs have the stage cross_layer, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run


FILES = (
    "matches.parquet", "fates.parquet", "persistence.parquet", "attribution.parquet", "coactivation.parquet", "modules.parquet",
    "module_summary.parquet", "variance.parquet", "novelty.parquet",
)  # fmt: skip


def folder(run: Run) -> Path:
    """Where the stage's tables are."""
    return run.results / "cross_layer"


def is_enabled(run: Run) -> bool:
    """Whether the run has the stage: layers can be compared where there are two."""
    return run.config.cross_layer.enabled and len(run.layers) > 1


def cross_layer_files(run: Run, task: int) -> Files:
    """Its tables, in a folder of their own."""
    return {folder(run) / name: {} for name in FILES}
