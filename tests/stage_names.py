"""Names of stages, from the pipeline's list: what a test expects goes on holding when a stage comes."""

from __future__ import annotations

from sae_genomics.stages import STAGES, stage_named

TURNED_OFF = ("concepts", "causal", "cross_layer")  # by the settings of tiny runs: each has tests of its own
OFF = {name: {"enabled": False} for name in TURNED_OFF}
_OF_TINY_RUNS = [stage for stage in STAGES if stage.name not in TURNED_OFF]
EVERY = [stage.name for stage in _OF_TINY_RUNS]
OF_LAYERS = [stage.name for stage in _OF_TINY_RUNS if stage.unit == "layer"]
OF_ARRAYS = [stage.name for stage in _OF_TINY_RUNS if stage.unit != "run"]


def on_from(name: str) -> list[str]:
    """That stage and those after it."""
    return [stage.name for stage in _OF_TINY_RUNS if stage.number >= stage_named(name).number]
