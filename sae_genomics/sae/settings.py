"""What can be wrong with the stage's settings, told before there is a run."""

from __future__ import annotations

from sae_genomics.run import Run
from sae_genomics.sae.architectures import architecture_named


def check(run: Run) -> None:
    """Raise UserError for settings that the architecture cannot work with, such as more active latents than there are."""
    settings = run.config.sae
    architecture_named(settings.architecture).check(settings, run.d_sae)
