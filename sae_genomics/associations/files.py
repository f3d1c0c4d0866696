"""What the stage associate leaves for a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics.associations.accumulators import accumulators_of
from sae_genomics.sae.files import MEANS_FILES, TRAINED_FILES
from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run

UNTRAINED = "untrained"  # folder of the SAE of that baseline, beside the run's own; cross_layer compares with it


def associate_files(run: Run, task: int) -> Files:
    """The tables of the accumulators that apply to the run, and the SAE of the baseline `untrained`."""
    layer = run.layers[task]
    tables = {run.layer_results(layer) / name: {"layer": layer, **parts} for name, parts in named_files(run).items()}
    return tables | {path: {"layer": layer} for path in untrained_sae_files(run, layer)}


def untrained_sae_dir(run: Run, layer: int) -> Path:
    """Where the SAE of the baseline `untrained` is."""
    return run.sae_dir(layer) / UNTRAINED


def untrained_sae_files(run: Run, layer: int) -> list[Path]:
    """Its files; none in a run without that baseline."""
    names = TRAINED_FILES + (MEANS_FILES if run.config.sae.centre == "unit" else ())
    return [untrained_sae_dir(run, layer) / name for name in names] if has_untrained(run) else []


def has_untrained(run: Run) -> bool:
    """Whether the run has that baseline."""
    return UNTRAINED in run.config.validation.baselines and run.kind.units_are_genes


def named_files(run: Run) -> dict[str, dict[str, Any]]:
    """Name of each file -> the settings that distinguish it from the layer's other files."""
    return {
        name: {"settings": run.values(entry.settings)} if entry.settings else {}
        for entry in accumulators_of(run)
        for name in entry.files(run)
    }
