"""Names of stages, from the pipeline's list: what a test expects goes on holding when a stage comes."""

from __future__ import annotations

from sae_genomics.stages import STAGES, stage_named

EVERY = [stage.name for stage in STAGES]
OF_LAYERS = [stage.name for stage in STAGES if stage.unit == "layer"]
OF_ARRAYS = [stage.name for stage in STAGES if stage.unit != "run"]


def on_from(name: str) -> list[str]:
    """That stage and those after it."""
    return [stage.name for stage in STAGES if stage.number >= stage_named(name).number]
