"""What the stage concepts adds: what layers know of concepts, where in an item, by which features, and whether predictions follow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from sae_genomics.artifacts import (
    CONCEPT_FEATURES,
    CONCEPT_LOCALISATION,
    CONCEPT_TCAV,
    CONCEPT_VECTORS,
    CONCEPT_WINDOWS,
)
from sae_genomics.checked_json import read_if_whole
from sae_genomics.concepts.files import THRESHOLDS_FILE
from sae_genomics.report import concept_vectors as of_vectors
from sae_genomics.report import figures_concept_vectors, section_concept_vectors
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.dashboard_concept_vectors import ConceptVectorsPanel
from sae_genomics.report.reading import Reading
from sae_genomics.report.summary import LayerSummary


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    path = contents.run.layer_results(summary.layer) / THRESHOLDS_FILE
    known = of_vectors.layer_concepts(results, read_if_whole(path) if path.exists() else None)
    if known is not None:
        summary.parts[of_vectors.PART] = known


def _figures(contents: Contents) -> Mapping[str, Draw]:
    known = of_vectors.of(contents.layers)
    if not known:
        return {}
    best = of_vectors.best(contents.layers, contents.config.validation.fdr)
    figures: dict[str, Draw] = {
        section_concept_vectors.FIGURE: lambda: figures_concept_vectors.overview(best, contents.wording)
    }
    examples = of_vectors.beside(known, best, "windows")
    if len(examples):
        groups = list(examples.groupby("concept", sort=False))[: figures_concept_vectors.MOST_PICTURES]
        for number, (concept, rows) in enumerate(groups, 1):
            name = figures_concept_vectors.picture_name(number, str(concept))
            figures[name] = partial(figures_concept_vectors.windows, rows, int(rows["layer"].iloc[0]), contents.wording)
    return figures


CONCEPT_VECTORS_PART = Contribution(
    name="concept vectors",
    order=46,
    tables=(
        Reading("concept_vectors", (CONCEPT_VECTORS,)),
        Reading("concept_localisation", (CONCEPT_LOCALISATION,)),
        Reading("concept_windows", (CONCEPT_WINDOWS,)),
        Reading("concept_features", (CONCEPT_FEATURES,)),
        Reading("concept_tcav", (CONCEPT_TCAV,)),
    ),
    take_layer=_take,
    gather=lambda contents: of_vectors.over_layers(contents.layers),
    section=section_concept_vectors.section,
    findings=lambda contents: [Said(20, section_concept_vectors.finding(contents))],
    caveats=lambda contents: [Said(20, section_concept_vectors.caveat(contents))],
    figures=_figures,
    figure_files=(f"{section_concept_vectors.FIGURE}.png", f"{section_concept_vectors.WINDOWS}_*.png"),
    panel=ConceptVectorsPanel,
    changes=lambda wording: [("find vectors of concepts of your own", "`concepts.examples`")],
)
