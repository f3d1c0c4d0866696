"""What a report says where no cell is held out: numbers on training cells, each with what they cannot show."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.artifacts import RECONSTRUCTION, Inference
from sae_genomics.report.contents import Contents
from sae_genomics.report.faithfulness import identity_words, who_reproduces
from sae_genomics.report.inference import TRAINING_CELLS, written
from sae_genomics.report.markdown import NONE, count, decimal, escape, is_number, percent, span, table
from sae_genomics.report.summary import LayerSummary

CERTAINTY = (
    "**No cell is held out.** Every number here comes from cells that the autoencoders were trained "
    "on. So this report cannot say how faithful the features are on other cells, nor how well a feature tells a cell type from "
    "others. Run again with `data.heldout_fraction: 0.2` to know both."
)
RECONSTRUCTION_OF_TRAINING = Inference(
    RECONSTRUCTION.unit, "training gene tokens, which are no replicates of each other", RECONSTRUCTION.null
)
DASHBOARD_NOTE = (
    "No cell is held out: FVU and L0 are of training cells, and no AUROC is known. Set data.heldout_fraction to 0.2."
)


def is_so(plan: dict[str, Any]) -> bool:
    """Whether the run's plan is known and holds out nothing."""
    return plan.get("n_heldout") == 0


def faithfulness(layers: list[LayerSummary], k: int) -> str:
    """The finding on reconstruction."""
    known = [each.metrics for each in layers if is_number(each.metrics.get("train_fvu"))]
    if not known:
        return ""
    explained = span((1 - each["train_fvu"] for each in known), lambda share: f"{100 * share:.0f} %")
    l0 = span((each.get("train_l0") for each in known), lambda value: f"{value:.0f}")
    where = "in its one layer" if len(known) == 1 else f"over the {len(known)} layers"
    stable = span((each.get("stability") for each in known), percent)
    again = f" An autoencoder trained with another seed finds {stable} of the features again." if stable != NONE else ""
    return (
        f"**Faithfulness.** On the training cells themselves the {who_reproduces(known)} reproduce {explained} of the variance of the "
        f"model's activations ({where}) with {l0} features active at a time.{identity_words(known, heldout=False)} On other cells it is less by an unknown amount.{again}"
    )


def reconstruction(known: list[LayerSummary]) -> list[str]:
    """Text and table of the section on reconstruction."""
    stable = any(each.metrics.get("stability") is not None for each in known)
    text = (
        "Measured on training cells, because no cell is held out; on other cells the features miss more. *FVU* is the share of the "
        "activations' variance that the features miss (0 is perfect), *L0* the mean number of active features a gene token, "
        "*silent* the share of features that had long not fired when training ended, *decoder cosine* the mean absolute cosine "
        "between features' directions (0: all different). What the reconstruction is worth to the model is not measured."
    )
    header = (
        "Layer",
        "FVU",
        *(["Stable"] if stable else []),
        "L0",
        "Silent",
        "Decoder cosine",
        "Features",
        "Training tokens",
    )
    rows = [
        (
            str(each.layer),
            decimal(each.metrics.get("train_fvu"), 3),
            *([percent(each.metrics.get("stability"))] if stable else []),
            decimal(each.metrics.get("train_l0"), 1),
            percent(each.metrics.get("train_dead_share")),
            decimal(each.metrics.get("mean_abs_decoder_cosine"), 3),
            count(each.metrics.get("d_sae")),
            count(each.metrics.get("train_tokens")),
        )
        for each in known
    ]  # fmt: skip
    return [text, table(header, rows, right=range(len(header))), written(RECONSTRUCTION_OF_TRAINING)]


def cell_types(contents: Contents) -> list[str]:
    """Text and table of the section on cell types: where to look, by training cells."""
    assert contents.wide is not None
    text = (
        "No cell is held out, so how well a feature tells a type from others is not known, and no q-value exists. The table shows where "
        "to look. It names the feature, the gene and the raw neuron with the highest AUROC on the training cells (0.5 is a coin, 1 is "
        "perfect). Each is the best of many on the very cells it was chosen on, so these numbers are too high."
    )
    cells = contents.prepared.cells
    wide = contents.wide.sort_values(("feature", "auroc_train"), ascending=False, kind="stable", na_position="last")
    rows = []
    for name, row in wide.iterrows():
        feature, gene, neuron = row["feature"], row["gene"], row["neuron"]
        n_cells = cells["train"].get(name) if cells is not None else None
        unit = f"{int(feature['unit'])}, layer {int(feature['layer'])}" if is_number(feature["unit"]) else NONE
        rows.append(
            (
                escape(name),
                count(n_cells),
                unit,
                decimal(feature["auroc_train"], 3),
                _named(escape(gene["name"]), gene) if is_number(gene["auroc_train"]) else NONE,
                _named(escape(neuron["name"]), neuron) if is_number(neuron["auroc_train"]) else NONE,
            )
        )
    header = ("Cell type", "Training cells", "Feature", "Training AUROC", "Gene", "Raw neuron")
    return [text, table(header, rows, right=(1, 3)), written(TRAINING_CELLS)]


def _named(name: str, row: pd.Series) -> str:
    return f"{name} ({decimal(row['auroc_train'], 3)})"
