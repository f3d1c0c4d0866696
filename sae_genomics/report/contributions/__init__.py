"""What the stages of a run contribute to its report, in the order of the sections. `Stage.contributions` names them."""

from __future__ import annotations

from sae_genomics.report.contribution import Contribution
from sae_genomics.run import Run
from sae_genomics.stage import named
from sae_genomics.stages import stages_of


def contributions(run: Run) -> list[Contribution]:
    """Those of the run's stages that are for its kind of data."""
    found: list[Contribution] = [named(name) for stage in stages_of(run) for name in stage.contributions]
    return sorted((each for each in found if each.applies(run.kind.name)), key=lambda each: each.order)
