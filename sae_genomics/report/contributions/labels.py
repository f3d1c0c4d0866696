"""What the accumulator of labels adds: features that tell cell types, or families, apart."""

from __future__ import annotations

from collections.abc import Mapping

from sae_genomics.artifacts import CELL_TYPE_BASELINES, FEATURE_CELL_TYPES, FEATURE_LABELS, LABEL_BASELINES
from sae_genomics.report import figures, findings, groups, nothing_heldout
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents, Example
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.dashboard_labels import LabelsPanel
from sae_genomics.report.markdown import escape, is_number
from sae_genomics.report.reading import Reading
from sae_genomics.report.section_labels import figure_name, labels
from sae_genomics.report.summary import LayerSummary, best_over_layers, side_by_side, with_certainty
from sae_genomics.report.wording import a


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    baselines = results.table("label_baselines")
    if baselines is not None and len(baselines):
        summary.baselines = with_certainty(baselines, results.table("labels"))


def _gather(contents: Contents) -> None:
    best = best_over_layers(contents.layers)
    contents.wide = side_by_side(best) if best is not None else None


def _findings(contents: Contents) -> list[Said]:
    return [Said(40, findings.labels(contents.wide, contents.config.validation.fdr, contents.wording))]


def _caveats(contents: Contents) -> list[Said]:
    plan, wide = contents.prepared.plan or {}, contents.wide
    return [
        Said(20, groups.behind(wide, plan, contents.wording)),
        Said(30, findings.few_items(wide, contents.wording)),
    ]


def _figures(contents: Contents) -> Mapping[str, Draw]:
    wide = contents.wide
    name = figure_name(contents.wording)
    return {name: lambda: figures.labels(wide, contents.wording) if wide is not None else None}


def _example(contents: Contents) -> Example | None:
    """The clearest label's feature."""
    if contents.wide is None:
        return None
    for name, row in contents.wide["feature"].iterrows():
        if is_number(row["unit"]) and (is_number(row["auroc"]) or nothing_heldout.is_so(contents.prepared.plan or {})):
            layer, feature = int(row["layer"]), int(row["unit"])
            where = "" if is_number(row["auroc"]) else f" on the training {contents.wording.nouns.items}"
            return Example(layer, feature, f"feature {feature} of layer {layer}, the best for {escape(name)}{where}")
    return None


LABELS = Contribution(
    name="labels",
    order=50,
    tables=(
        Reading("labels", (FEATURE_CELL_TYPES, FEATURE_LABELS)),
        Reading("label_baselines", (CELL_TYPE_BASELINES, LABEL_BASELINES)),
    ),
    take_layer=_take,
    gather=_gather,
    section=labels,
    findings=_findings,
    caveats=_caveats,
    figures=_figures,
    example=_example,
    panel=LabelsPanel,
    compared_with=lambda wording: Said(20, f"annotated {wording.nouns.labels}"),
    matched=lambda wording: Said(20, a(wording.nouns.label)),
    found_by=lambda wording: Said(20, wording.nouns.label),
    changes=lambda wording: [
        (f"compare with another annotation of the {wording.nouns.items}", f"`{wording.change_labels}`")
    ],
)
