"""What can be wrong with the stage's settings, told before there is a run."""

from __future__ import annotations

from sae_genomics.errors import UserError
from sae_genomics.run import Run


def check(run: Run) -> None:
    """Raise UserError for more active latents than there are."""
    if run.config.sae.k > run.d_sae:
        raise UserError(
            f"sae.k = {run.config.sae.k} is more than d_sae = {run.d_sae} (sae.expansion x d_model); "
            f"set sae.k to {run.d_sae} or less, or sae.d_sae to more"
        )
