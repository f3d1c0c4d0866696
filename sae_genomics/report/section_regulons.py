"""report.md, regulons: units that read a factor's programme, and pairs of genes that units read together beside known pairs."""

from __future__ import annotations

from sae_genomics.report import inference
from sae_genomics.report.annotation_wording import MOST_LAYERS
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import NONE, count, decimal, details, escape, percent, span, table
from sae_genomics.report.regulons import Programmes, Recovered, mean
from sae_genomics.report.summary import LayerSummary

HEADER = (
    "Regulons", "Units", "Tested", "With a factor's targets", "by chance", "Different factors", "Factor itself listed", "expected",
    "Activated targets", "expected",
)  # fmt: skip
PAIRS_HEADER = ("Regulons", "Units", "Strength", "AUROC", "rewired", "Early precision ratio", "rewired", "p")
_STRENGTHS = {"score": "score", "log_score": "log of the score", "specificity": "specificity"}


def tested(contents: Contents) -> list[tuple[LayerSummary, list[Programmes], list[Recovered]]]:
    """The layers with regulons, and what was found."""
    return [
        (each, each.parts["regulons"], each.parts.get("regulon_edges", []))
        for each in contents.layers
        if each.parts.get("regulons")
    ]


def finding(contents: Contents) -> str:
    """Two sentences over all layers; empty without regulons."""
    layers = tested(contents)
    features = [(each.layer, found) for each, first, _ in layers for found in first if found.units == "features"]
    if not features:
        return ""
    shares = span([found.share for _, found in features], percent)
    chance = span([mean(found.null) / found.n_units for _, found in features if found.n_units], percent)
    text = (
        f"**Regulons.** {shares} of the features {_over(len(features))} have the targets of a transcription factor among their top genes; with "
        f"gene names shuffled {chance} have."
    )
    pairs = [(each.layer, found) for each, _, second in layers for found in second if found.units == "features"]
    if pairs:
        highest = [max(found.rewired_auroc) for _, found in pairs]
        text += (
            f" Known pairs of factor and target are recovered with an AUROC of {span([found.auroc for _, found in pairs], _three)}; the highest of "
            f"{len(pairs[0][1].rewired_auroc)} rewired regulons {'reaches' if len(pairs) == 1 else 'reach'} {span(highest, _three)}."
        )
    return text


def _over(n_layers: int) -> str:
    return "in the one layer here" if n_layers == 1 else f"(over {n_layers} layers)"


def _three(value: float) -> str:
    return decimal(value, 3)


def section(contents: Contents) -> str:
    """The section, with its title; empty without regulons."""
    layers = tested(contents)
    if not layers:
        return ""
    settings = contents.config.validation
    parts = [
        "## Features that are programmes of transcription factors",
        f"Each unit's top {settings.top_genes} genes are tested for the targets of each factor, as for gene sets: q < {settings.fdr:g}, also "
        "among genes of the same expression. *By chance* means gene names shuffled among genes of the same expression. Two further columns "
        "ask of the pairs found whether the factor itself is one of the top genes, and how many of the targets found are known to be "
        "activated. *Expected* is what chance gives for the same pairs.",
        "The second table asks about pairs of genes. Genes that the same units read are strong pairs (the cosine of their rows). AUROC "
        "says how often a known pair is stronger than another pair. The early precision ratio says how much more often the strongest pairs are known "
        "than all pairs. Both are measured on factors that were held out when the strength was chosen. In *rewired* regulons each factor "
        "and each target keeps its number of partners; mean and highest value are shown.",
        contents.figure("regulons", "Recovery of known pairs of factor and target, beside rewired regulons"),
    ]
    for index, (summary, first, second) in enumerate(layers):
        body = "\n\n".join(
            part
            for part in (
                table(HEADER, [_row(each) for each in first], right=range(2, len(HEADER))),
                inference.line([summary], "regulon_nulls"),
                table(PAIRS_HEADER, [_pairs_row(each) for each in second], right=range(3, len(PAIRS_HEADER)))
                if second
                else "",
                inference.line([summary], "regulon_edges") if second else "",
            )
            if part
        )
        title = f"Layer {summary.layer}: regulons"
        folded = index > 0 and len(layers) > MOST_LAYERS
        parts.append(details(title, body) if folded else f"### {title}\n\n{body}")
    parts.append("All features: `feature_regulons.parquet` in each layer's folder.")
    return "\n\n".join(part for part in parts if part)


def _row(found: Programmes) -> tuple[str, ...]:
    if not found.n_units:
        return (escape(found.database), escape(found.label), "0", *[NONE] * 7)
    null = f"{decimal(mean(found.null), 1)}, max {count(max(found.null))}" if found.null else NONE
    signed = found.n_signed > 0
    return (
        escape(found.database), escape(found.label), count(found.n_units), f"{count(found.n_found)} ({percent(found.share)})", null,
        count(found.n_factors), f"{count(found.n_own)} of {count(found.n_pairs)}" if found.n_pairs else NONE,
        decimal(found.expected_own, 1) if found.n_pairs else NONE,
        f"{count(found.n_activated)} of {count(found.n_signed)}" if signed else NONE,
        decimal(found.expected_activated, 1) if signed else NONE,
    )  # fmt: skip


def _pairs_row(found: Recovered) -> tuple[str, ...]:
    return (
        escape(found.database), escape(found.label), _STRENGTHS.get(found.strength, found.strength), decimal(found.auroc, 3),
        f"{decimal(mean(found.rewired_auroc), 3)}, max {decimal(max(found.rewired_auroc), 3)}", decimal(found.ratio, 2),
        f"{decimal(mean(found.rewired_ratio), 2)}, max {decimal(max(found.rewired_ratio), 2)}", decimal(found.p_value, 3),
    )  # fmt: skip
