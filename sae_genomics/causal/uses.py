"""What a layer's features can be used for, after their effects are known: steering, deleted genes, what they read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.artifacts.steering import STEERED_FILE, USES_TABLES
from sae_genomics.causal.knockout import write_knockout
from sae_genomics.causal.reads_writes import write_reads_writes
from sae_genomics.causal.steered_h5ad import write_steered
from sae_genomics.causal.steering import write_steering

if TYPE_CHECKING:
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.run import Run
    from sae_genomics.sae.load import Encoder


def write_uses(run: Run, layer: int, model: FoundationModel, encoder: Encoder) -> None:
    """Leave the layer's files of `artifacts.steering`. The tables on features' effects must be there: output scores come from them."""
    write_steering(run, layer, model, encoder)
    write_knockout(run, layer, model, encoder)
    write_reads_writes(run, layer, model, encoder)


def write_no_uses(run: Run, layer: int, model: FoundationModel, encoder: Encoder, reason: str) -> None:
    """The same files without rows, with a note that says why."""
    folder = run.layer_results(layer)
    for table in USES_TABLES:
        table.write(folder / table.file, table.schema.empty_table().to_pandas(), note=reason, weights=encoder.weights)
    write_steered(folder / STEERED_FILE, run, layer, model, [])
