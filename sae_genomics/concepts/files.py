"""Which runs have the stage concepts, and what it leaves for a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run


def is_enabled(run: Run) -> bool:
    """Whether the run has the stage."""
    return run.config.concepts.enabled


def concepts_files(run: Run, task: int) -> Files:
    """Its tables."""
    layer = run.layers[task]
    names: tuple[str, ...] = ()
    return {run.layer_results(layer) / name: {"layer": layer} for name in names}
