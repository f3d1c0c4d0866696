"""What the stage associate leaves for a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sae_genomics.associations.accumulators import accumulators_of
from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run


def associate_files(run: Run, task: int) -> Files:
    """The tables of the accumulators that apply to the run."""
    layer = run.layers[task]
    return {run.layer_results(layer) / name: {"layer": layer, **parts} for name, parts in named_files(run).items()}


def named_files(run: Run) -> dict[str, dict[str, Any]]:
    """Name of each file -> the settings that distinguish it from the layer's other files."""
    return {
        name: {"settings": run.values(entry.settings)} if entry.settings else {}
        for entry in accumulators_of(run)
        for name in entry.files(run)
    }
