"""What training adds: how faithful the features are."""

from __future__ import annotations

from collections.abc import Mapping

from sae_genomics.report import figures, findings, nothing_heldout
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.section_training import reconstruction


def _findings(contents: Contents) -> list[Said]:
    unheld = nothing_heldout.is_so(contents.prepared.plan or {})
    faithful = nothing_heldout.faithfulness if unheld else findings.reconstruction
    return [
        Said(20, faithful(contents.layers, contents.wording)),
        Said(30, findings.doubtful(contents.layers, contents.wording)),
    ]


def _figures(contents: Contents) -> Mapping[str, Draw]:
    return {
        "reconstruction": lambda: figures.reconstruction(contents.layers),
        "firing_rates": lambda: figures.firing_rates(contents.layers, contents.wording),
    }


TRAINING = Contribution(
    name="training",
    order=30,
    section=reconstruction,
    findings=_findings,
    figures=_figures,
    figure_files=("reconstruction.png", "firing_rates.png"),
)
