"""What the stage causal adds: what features change in the model's predictions, and what they can be used for."""

from __future__ import annotations

from collections.abc import Mapping

from sae_genomics.artifacts.causal import CAUSAL_CURVES, CAUSAL_DOSE, CAUSAL_FEATURES, CAUSAL_NULLS, CAUSAL_SCREEN
from sae_genomics.artifacts.steering import CAUSAL_GENES, CAUSAL_READS_WRITES, CAUSAL_STEERING
from sae_genomics.report import figures_causal, section_causal
from sae_genomics.report.causal import causal, of
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.dashboard_causal import CausalPanel
from sae_genomics.report.reading import Reading
from sae_genomics.report.summary import LayerSummary


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    summary.parts["causal"] = causal(results)


def _figures(contents: Contents) -> Mapping[str, Draw]:
    layers = of(contents.layers)
    if not layers:
        return {}
    return {
        "causal_effects": lambda: figures_causal.effects(layers),
        "causal_doses": lambda: figures_causal.doses(layers),
        "causal_reads_writes": lambda: figures_causal.reads_writes(layers),
        "causal_steering": lambda: figures_causal.steering(layers),
    }


def _caveats(contents: Contents) -> list[Said]:
    layers = of(contents.layers)
    if not any(each.n_tested for _, each in layers):
        return []
    nouns = contents.wording.nouns
    text = (
        "Interventions change the model, not biology: what they show is how this model predicts. An effect rests on few held-out "
        f"{nouns.items} per feature, and on the choice of what its own targets are."
    )
    return [Said(40, text)]


CAUSAL = Contribution(
    name="causal",
    order=60,
    tables=(
        Reading("causal_features", (CAUSAL_FEATURES,)),
        Reading("causal_nulls", (CAUSAL_NULLS,)),
        Reading("causal_screen", (CAUSAL_SCREEN,)),
        Reading("causal_dose", (CAUSAL_DOSE,)),
        Reading("causal_curves", (CAUSAL_CURVES,)),
        Reading("causal_reads_writes", (CAUSAL_READS_WRITES,)),
        Reading("causal_steering", (CAUSAL_STEERING,)),
        Reading("causal_genes", (CAUSAL_GENES,)),
    ),
    take_layer=_take,
    section=section_causal.section,
    findings=lambda contents: [Said(40, section_causal.finding(contents))],
    caveats=_caveats,
    figures=_figures,
    figure_files=tuple(f"{name}.png" for name in section_causal.FIGURES),
    panel=CausalPanel,
    changes=lambda wording: [
        (f"steer {wording.nouns.items} between other {wording.nouns.labels}", "`causal.steer`"),
        *(
            [(f"delete or raise other {wording.nouns.units}", "`causal.knockout_genes`")]
            if wording.kind == "cells"
            else []
        ),
    ],
)
