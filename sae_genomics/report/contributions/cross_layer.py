"""What comparing layers adds: which features persist, which fire together, and which unnamed ones are worth a look."""

from __future__ import annotations

from collections.abc import Mapping

from sae_genomics.artifacts.cross_layer import ATTRIBUTION, FATES, MATCHES, PERSISTENCE
from sae_genomics.artifacts.modules import COACTIVATION, MODULE_SUMMARY, MODULES, NOVELTY, VARIANCE
from sae_genomics.report import figures_cross_layer, section_cross_layer
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.cross_layer import FOLDER, above_null, between_modules, linked, passages
from sae_genomics.report.dashboard_cross_layer import CrossLayerPanel
from sae_genomics.report.reading import Reading


def _figures(contents: Contents) -> Mapping[str, Draw]:
    results, unit = contents.run_results, contents.wording.nouns.unit
    flow, modules, variance = section_cross_layer.FIGURES
    return {
        flow: lambda: figures_cross_layer.flow(passages(results), unit),
        modules: lambda: figures_cross_layer.modules(above_null(results), between_modules(results)),
        variance: lambda: figures_cross_layer.variance(results.table("variance")),
    }


CROSS_LAYER = Contribution(
    name="features over layers",
    order=70,
    run_tables=(
        Reading("persistence", (PERSISTENCE,), below=FOLDER),
        Reading("fates", (FATES,), below=FOLDER),
        Reading("matches", (MATCHES,), linked, FOLDER),
        Reading("attribution", (ATTRIBUTION,), below=FOLDER),
        Reading("coactivation", (COACTIVATION,), below=FOLDER),
        Reading("modules", (MODULES,), below=FOLDER),
        Reading("module_summary", (MODULE_SUMMARY,), below=FOLDER),
        Reading("variance", (VARIANCE,), below=FOLDER),
        Reading("novelty", (NOVELTY,), below=FOLDER),
    ),
    section=section_cross_layer.section,
    findings=lambda contents: [Said(60, section_cross_layer.finding(contents))],
    figures=_figures,
    figure_files=tuple(f"{name}.png" for name in section_cross_layer.FIGURES),
    panel=CrossLayerPanel,
    found_by=lambda wording: Said(60, "module"),
)
