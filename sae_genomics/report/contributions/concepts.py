"""What the accumulator of spans adds: features that find annotated concepts."""

from __future__ import annotations

from collections.abc import Mapping

from sae_genomics.artifacts import CONCEPT_BASELINES, CONCEPT_COUNTS, FEATURE_CONCEPTS
from sae_genomics.report import figures_concepts, section_concepts
from sae_genomics.report.best_features import least_f1
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.concepts import FEATURE, concepts, label, over_layers
from sae_genomics.report.contents import Contents, Example
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.dashboard_concepts import ConceptsPanel
from sae_genomics.report.markdown import escape
from sae_genomics.report.reading import Reading
from sae_genomics.report.summary import LayerSummary


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    summary.parts["concepts"] = concepts(results.table("concept_counts"), results.table("concept_baselines"))


def _figures(contents: Contents) -> Mapping[str, Draw]:
    return {section_concepts.FIGURE: lambda: figures_concepts.found(contents.layers)}


def _example(contents: Contents) -> Example | None:
    """The clearest concept's feature."""
    best = over_layers(contents.layers)
    features = best[best["kind"] == FEATURE] if best is not None else None
    if features is None or features.empty:
        return None
    first, config = features.iloc[0], contents.config
    if not (first["f1_residue"] >= least_f1(config) and first["q_value"] < config.validation.fdr):
        return None
    layer, feature = int(first["layer"]), int(first["unit"])
    return Example(layer, feature, f"feature {feature} of layer {layer}, the best for {escape(first['name'])}")


def _caveats(contents: Contents) -> list[Said]:
    if over_layers(contents.layers) is None:
        return []
    items = contents.wording.nouns.items
    text = f"Concepts are scored on the half of the {items} that chose neither unit nor threshold; autoencoders were trained on some of these {items}."
    return [Said(10, text)]


def _layer_facts(summary: LayerSummary) -> dict[str, object]:
    known = summary.parts.get("concepts")
    if known is None:
        return {}
    rows = [
        {
            "units": label(kind),
            "n_units": each.n_units,
            "n_with": each.n_units_with_concept,
            "n_found": each.n_concepts,
            "n_tested": each.n_tested,
        }
        for kind, each in known.found.items()
    ]
    return {"headline": known.headline(summary.layer), "concepts": rows, "criterion": known.criterion}


CONCEPTS = Contribution(
    name="concepts",
    order=40,
    not_for=("cells", "text"),
    tables=(
        Reading("concepts", (FEATURE_CONCEPTS,)),
        Reading("concept_baselines", (CONCEPT_BASELINES,)),
        Reading("concept_counts", (CONCEPT_COUNTS,)),
    ),
    take_layer=_take,
    section=section_concepts.section,
    findings=lambda contents: [Said(10, section_concepts.opening(contents.layers))],
    caveats=_caveats,
    figures=_figures,
    figure_files=(f"{section_concepts.FIGURE}.png",),
    example=_example,
    panel=ConceptsPanel,
    layer_facts=_layer_facts,
    headline=section_concepts.verdict,
    compared_with=lambda wording: Said(30, f"annotated {wording.nouns.spans}"),
    matched=lambda wording: Said(10, "a concept"),
    found_by=lambda wording: Said(5, "concept"),
    changes=lambda wording: [(f"compare with other annotated {wording.nouns.spans}", "`data.spans`")],
)
