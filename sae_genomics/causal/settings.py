"""What can be wrong with the stage's settings, told before there is a run; needs no tables, so that every command can ask."""

from __future__ import annotations

from sae_genomics.errors import UserError
from sae_genomics.run import Run


def check(run: Run) -> None:
    """Raise UserError for settings that the stage cannot work with."""
    settings = run.config.causal
    if settings.features + settings.sampled_features == 0:
        raise UserError(
            "causal.features and causal.sampled_features are both 0, so no feature would be edited; set one of them above 0, or "
            "causal.enabled to false"
        )
