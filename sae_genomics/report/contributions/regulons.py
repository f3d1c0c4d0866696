"""What regulons add: features that are a transcription factor's programme, and known pairs recovered, beside chance."""

from __future__ import annotations

from collections.abc import Mapping

from sae_genomics.artifacts import REGULON_EDGES, REGULON_NULLS
from sae_genomics.report import figures_regulons, section_regulons
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.reading import Reading
from sae_genomics.report.regulons import programmes, recovered
from sae_genomics.report.summary import LayerSummary


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    nulls, edges = results.table("regulon_nulls"), results.table("regulon_edges")
    if nulls is not None and len(nulls):
        summary.parts["regulons"] = programmes(nulls)
    if edges is not None and len(edges):
        summary.parts["regulon_edges"] = recovered(edges)


def _figures(contents: Contents) -> Mapping[str, Draw]:
    layers = [(each.layer, second) for each, _, second in section_regulons.tested(contents)]
    return {"regulons": lambda: figures_regulons.recovery(layers)} if layers else {}


REGULONS = Contribution(
    name="regulons",
    order=44,
    kinds=("cells",),
    tables=(
        Reading("regulon_nulls", (REGULON_NULLS,)),
        Reading("regulon_edges", (REGULON_EDGES,)),
    ),
    take_layer=_take,
    section=section_regulons.section,
    findings=lambda contents: [Said(14, section_regulons.finding(contents))],
    figures=_figures,
    figure_files=("regulons.png",),
)
