"""report.md, the results: faithfulness, cell types, the best features."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.artifacts import CELL_TYPE_BASELINES, FEATURE_TERMS, FEATURES, RECONSTRUCTION
from sae_genomics.report import faithfulness, groups, inference, nothing_heldout
from sae_genomics.report.annotation_words import headline
from sae_genomics.report.contents import Contents
from sae_genomics.report.findings import FEW_CELLS
from sae_genomics.report.markdown import (
    NONE,
    code,
    count,
    decimal,
    details,
    escape,
    is_number,
    percent,
    probability,
    table,
)
from sae_genomics.report.section_type_baselines import beside_baselines
from sae_genomics.report.summary import LayerSummary
from sae_genomics.sae.compare import STABLE_COSINE
from sae_genomics.sae.quality import doubts


def _figure(contents: Contents, name: str, text: str) -> str:
    path = contents.figures.get(name)
    return f"![{text}]({path})" if path else ""


def reconstruction(contents: Contents) -> str:
    known = [each for each in contents.layers if each.metrics]
    parts = ["## How faithful the features are"]
    if not known:
        parts.append("No trained autoencoder yet.")
        return "\n\n".join(parts)
    heldout = not nothing_heldout.is_so(contents.prepared.plan or {})
    parts += _reconstruction(known) if heldout else nothing_heldout.reconstruction(known)
    parts.append(faithfulness.identity_table(known, heldout))
    if parts[-1]:
        parts.append(inference.written(RECONSTRUCTION if heldout else nothing_heldout.RECONSTRUCTION_OF_TRAINING))
    parts.append(_doubts(known))
    parts.append(_weights(known))
    parts.append(_figure(contents, "reconstruction", "FVU, L0 and dead share by layer"))
    parts.append(_figure(contents, "firing_rates", "Histogram of firing rates by layer"))
    return "\n\n".join(part for part in parts if part)


def _doubts(known: list[LayerSummary]) -> str:
    """What a reader must know before believing a layer's features."""
    lines = [f"- **Layer {each.layer}.** {escape(text)}." for each in known for text in doubts(each.metrics)]
    return "Read these layers with care:\n\n" + "\n".join(lines) if lines else ""


def _weights(known: list[LayerSummary]) -> str:
    """Which weights each layer's numbers, features and tables describe."""
    rows = [(str(each.layer), code(each.metrics["weights"])) for each in known if each.metrics.get("weights")]
    if not rows:
        return ""
    said = "The content hash of `sae_weights.safetensors`. `cfg.json` beside it, `features.h5ad` and the layer's tables hold the same one."
    header = ("Layer", "Weights (BLAKE2b)")
    return details("Which weights this describes", f"{said}\n\n{table(header, rows, right=(0,))}")


def _reconstruction(known: list[LayerSummary]) -> list[str]:
    """Text and table, of held-out cells."""
    parts = [
        "Measured on held-out cells. *FVU* is the share of the activations' variance that the features miss (0 is perfect; "
        "*explained variance* is the rest), *L0* the mean number of active features a gene token, *dead* the share of features "
        "that never fired there, *decoder cosine* the mean absolute cosine between features' directions (0: all different). "
        "*Loss recovered*: with the reconstruction in place of the layer's activations, how much of what the layer is worth to the "
        "model's own prediction of hidden genes remains (1: all, 0: no more than the layer's mean activation would leave)."
        + faithfulness.loss_words(known)
    ]
    stable = any(each.metrics.get("stability") is not None for each in known)
    if stable:
        parts[-1] += (
            " *Stable*: a second autoencoder was trained with another seed; this share of the features has a partner in it (cosine of "
            f"their directions at least {STABLE_COSINE:g}). A feature without one is one way among several to take the activations apart."
        )
    rows = [
        (
            str(each.layer),
            decimal(each.metrics.get("fvu"), 3),
            decimal(each.metrics.get("explained_variance"), 3),
            faithfulness.loss_recovered(each.metrics),
            *([percent(each.metrics.get("stability"))] if stable else []),
            decimal(each.metrics.get("l0"), 1),
            percent(each.metrics.get("dead_share")),
            decimal(each.metrics.get("mean_abs_decoder_cosine"), 3),
            count(each.metrics.get("d_sae")),
            count(each.metrics.get("heldout_tokens")),
        )
        for each in known
    ]
    header = (
        "Layer",
        "FVU",
        "Explained variance",
        "Loss recovered",
        *(["Stable"] if stable else []),
        "L0",
        "Dead",
        "Decoder cosine",
        "Features",
        "Held-out tokens",
    )
    return [*parts, table(header, rows, right=range(len(header))), inference.written(RECONSTRUCTION)]


def cell_types(contents: Contents) -> str:
    parts = ["## Features that tell cell types apart"]
    if contents.wide is None:
        if not any(each.n_features for each in contents.layers):
            parts.append("Not tested yet.")
        else:
            parts.append(
                "No cell type could be tested: the cells carry no annotation, or their types are too small. Name the column of "
                "`obs` that holds the annotation in `data.cell_type_key`."
            )
        return "\n\n".join(parts)
    if nothing_heldout.is_so(contents.prepared.plan or {}):
        parts += nothing_heldout.cell_types(contents)
        parts.append(_figure(contents, "embedding", "These features on the embedding of the cells"))
        return "\n\n".join(part for part in parts if part)
    parts.append(
        "For each type the one feature, the one gene and the one raw neuron that separate it best from all other cells, each "
        "chosen on training cells (over all layers) and measured on held-out cells. *AUROC* is the chance that a cell of the "
        "type scores above a cell of another: 0.5 is a coin, 1 is perfect. In brackets the 95 % interval. *q* is over every "
        "feature x cell type test of the layer. The types stand by the lower end of the feature's interval."
    )
    parts.append(groups.how_measured(contents.prepared.plan or {}))
    parts.append(_types_table(contents.wide, contents.dashboard))
    basis = inference.line(contents.layers, CELL_TYPE_BASELINES)
    parts += [basis, beside_baselines(contents.wide, basis)]
    parts.append(_untested(contents))
    parts.append(
        _figure(contents, "cell_types", "Held-out AUROC of the best feature, gene and raw neuron of each cell type")
    )
    parts.append(
        _figure(contents, "embedding", "The best features of the largest cell types on the embedding of the cells")
    )
    for each in contents.layers:
        if each.baselines is not None:
            body = _layer_types(each, contents.dashboard)
            if body:
                body += f"\n\n{inference.line([each], CELL_TYPE_BASELINES)}"
                parts.append(details(f"Layer {each.layer}, every cell type", body))
    return "\n\n".join(part for part in parts if part)


def _untested(contents: Contents) -> str:
    """Which types have no q-value for want of groups; said once, because all layers have the same cells."""
    known = [each.baselines for each in contents.layers if each.baselines is not None]
    return groups.reasons(known[0]) if known and groups.is_so(contents.prepared.plan or {}) else ""


def _types_table(wide: pd.DataFrame, dashboard: str) -> str:
    rows = []
    grouped = bool(wide[("feature", "n_groups")].notna().any())
    for name, row in wide.iterrows():
        feature, gene, neuron = row["feature"], row["gene"], row["neuron"]
        where = (
            f"{_feature_link(dashboard, feature['layer'], feature['unit'])}, layer {int(feature['layer'])}"
            if is_number(feature.get("unit"))
            else NONE
        )
        rows.append(
            (
                escape(name),
                _cells(feature["n_cells"] if is_number(feature["n_cells"]) else gene["n_cells"]),
                *([count(feature["n_groups"])] if grouped else []),
                where,
                _auroc(feature),
                probability(feature["q_value"]),
                f"{escape(gene['name'])} {_auroc(gene)}" if is_number(gene["auroc"]) else NONE,
                f"{_auroc(neuron)}, layer {int(neuron['layer'])}" if is_number(neuron["auroc"]) else NONE,
            )
        )
    header = (
        "Cell type",
        "Held-out cells",
        *(["Groups"] if grouped else []),
        "Best feature",
        "AUROC",
        "q",
        "Best single gene",
        "Best raw neuron",
    )
    return table(header, rows, right=(1, 2, 5) if grouped else (1, 4))


def _cells(n: Any) -> str:
    return f"{count(n)} (few)" if is_number(n) and n < FEW_CELLS else count(n)


def _auroc(row: Any) -> str:
    if not is_number(row["auroc"]):
        return "too few held-out groups" if is_number(row["n_groups"]) else "too few held-out cells"
    ends = f" ({decimal(row['low'])}–{decimal(row['high'])})" if is_number(row["low"]) else ""
    return f"{decimal(row['auroc'], 3)}{ends}"


def _layer_types(summary: LayerSummary, dashboard: str) -> str:
    assert summary.baselines is not None
    rows = []
    for name, group in summary.baselines.groupby("cell_type", sort=False):
        kinds = {row["kind"]: row for _, row in group.iterrows()}
        feature = kinds.get("feature")
        if feature is None:
            continue
        beside = [
            (f"{escape(kinds[kind]['name'])} " if kind == "gene" else "") + decimal(kinds[kind]["auroc"], 3)
            if kind in kinds
            else NONE
            for kind in ("gene", "neuron")
        ]
        rows.append(
            (
                escape(name),
                _cells(feature["n_cells"]),
                _feature_link(dashboard, summary.layer, feature["unit"]),
                _auroc(feature),
                probability(feature["q_value"]),
                *beside,
            )
        )
    header = ("Cell type", "Held-out cells", "Best feature", "AUROC", "q", "Best single gene", "Best raw neuron")
    return table(header, rows, right=(1, 4)) if rows else ""


def _feature_link(dashboard: str, layer: Any, feature: Any) -> str:
    return (
        f"[{int(feature)}]({dashboard}#layer={int(layer)}&feature={int(feature)})" if dashboard else str(int(feature))
    )


def best_features(contents: Contents) -> str:
    known = [each for each in contents.layers if each.best is not None and len(each.best)]
    if not known:
        return ""
    fdr = contents.config.validation.fdr
    if nothing_heldout.is_so(contents.prepared.plan or {}):
        order = (
            f"First the features that match a gene set (q < {fdr:g}), the clearest first, at most two features with the same one. "
            "No cell is held out, so no feature is tested against cell types. The genes are those most specific to the feature."
        )
    else:
        order = (
            f"First the features that match both a gene set and a cell type (q < {fdr:g} each), then those that match one, the "
            "clearest gene sets first, at most two features with the same one. The genes are those most specific to the feature; "
            "AUROC and q are from held-out cells."
        )
    parts = [
        "## The best features",
        f"{order} Such a list shows what there is, not how common it is: for that, see the shares "
        "against their nulls above.",
    ]
    if contents.wide is None and "embedding" in contents.figures:
        parts.append(_figure(contents, "embedding", "Best features of the deepest layer on the embedding of the cells"))
    for place, each in enumerate(known):
        assert each.best is not None
        said = [
            inference.line([each], FEATURES, "Cell types"),
            inference.line([each], FEATURE_TERMS, "Gene sets"),
        ]
        body = "\n\n".join([_features_table(each.best, each.layer, contents.dashboard), *filter(None, said)])
        title, text = f"Layer {each.layer}", _layer_words(each)
        parts.append(f"### {title}\n\n{text}\n\n{body}" if place == 0 else details(f"{title}: {text}", body))
    return "\n\n".join(parts)


def _layer_words(summary: LayerSummary) -> str:
    """How many features are annotated in all, beside its nulls."""
    note, n_features = summary.annotation, count(summary.n_features)
    if note is None:
        return f"{n_features} features, {'no gene set fits' if summary.nothing_tested else 'not yet compared with gene sets'}."
    return headline(summary.layer, note).split(": ", 1)[1]


def _features_table(best: pd.DataFrame, layer: int, dashboard: str) -> str:
    rows = []
    for row in best.to_dict("records"):
        term = typed = NONE
        if row["known"]:
            overlap = (
                f"{count(row['n_overlap'])} of {count(row['n_term'])} genes, q = {probability(row['term_q_value'])}"
            )
            term = f"{escape(row['term'])} ({overlap})"
        if row["typed"]:
            area, q_value = decimal(row["best_cell_type_auroc"]), probability(row["best_cell_type_q_value"])
            typed = f"{escape(row['best_cell_type'])} ({area}, q = {q_value})"
        rows.append(
            (
                _feature_link(dashboard, layer, row["feature"]),
                percent(row["firing_rate"]),
                ", ".join(escape(gene) for gene in row["genes"]) or escape(row["top_gene"] or NONE),
                typed,
                term,
            )
        )
    header = ("Feature", "Fires in", "Most specific genes", "Best cell type (AUROC)", "Best gene set")
    return table(header, rows, right=(0, 1))
