"""What a report says where no cell is held out: numbers on training cells, each with what they cannot show."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.report import inference
from sae_genomics.report.contents import Contents
from sae_genomics.report.faithfulness import share_of_units, who_reproduces
from sae_genomics.report.inference import written
from sae_genomics.report.markdown import NONE, count, decimal, escape, is_number, percent, span, table
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording, a, first_upper


def certainty(wording: Wording) -> str:
    """What cannot be known."""
    nouns = wording.nouns
    return (
        f"**No {nouns.item} is held out.** Every number here comes from {nouns.items} that the autoencoders were trained "
        f"on. So this report cannot say how faithful the features are on other {nouns.items}, nor how well a feature tells "
        f"{a(nouns.label)} from others. Run again with `data.heldout_fraction: 0.2` to know both."
    )


def dashboard_note(wording: Wording) -> str:
    """The same for the dashboard, as plain text."""
    nouns = wording.nouns
    return (
        f"No {nouns.item} is held out: FVU and L0 are of training {nouns.items}, and no AUROC is known. "
        "Set data.heldout_fraction to 0.2."
    )


def is_so(plan: dict[str, Any]) -> bool:
    """Whether the run's plan is known and holds out nothing."""
    return plan.get("n_heldout") == 0


def faithfulness(layers: list[LayerSummary], wording: Wording) -> str:
    """The finding on reconstruction."""
    known = [each.metrics for each in layers if is_number(each.metrics.get("train_fvu"))]
    if not known:
        return ""
    items = wording.nouns.items
    explained = span((1 - each["train_fvu"] for each in known), lambda share: f"{100 * share:.0f} %")
    l0 = span((each.get("train_l0") for each in known), lambda value: f"{value:.0f}")
    where = "in its one layer" if len(known) == 1 else f"over the {len(known)} layers"
    stable = span((each.get("stability") for each in known), percent)
    again = f" An autoencoder trained with another seed finds {stable} of the features again." if stable != NONE else ""
    return (
        f"**Faithfulness.** On the training {items} themselves the {who_reproduces(known, wording)} reproduce {explained} of the variance of the "
        f"model's activations ({where}) with {l0} features active at a time.{share_of_units(known, heldout=False, wording=wording)} On other "
        f"{items} it is less by an unknown amount.{again}"
    )


def reconstruction(known: list[LayerSummary], wording: Wording) -> list[str]:
    """Text and table of the section on reconstruction."""
    stable, nouns = any(each.metrics.get("stability") is not None for each in known), wording.nouns
    text = (
        f"Measured on training {nouns.items}, because no {nouns.item} is held out; on other {nouns.items} the features miss more. *FVU* is the share "
        f"of the activations' variance that the features miss (0 is perfect), *L0* the mean number of active features per {nouns.token}, "
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
    return [
        text,
        table(header, rows, right=range(len(header))),
        written(inference.reconstruction(nouns, heldout=False)),
    ]


def labels(contents: Contents) -> list[str]:
    """Text and table of the section on labels: where to look, by training cells."""
    assert contents.wide is not None
    wording, nouns = contents.wording, contents.wording.nouns
    text = (
        f"No {nouns.item} is held out, so how well a feature tells {a(wording.type)} from others is not known, and no q-value exists. The table "
        f"shows where to look. It names the feature, the {nouns.unit} and the raw neuron with the highest AUROC on the training {nouns.items} "
        f"(0.5 is a coin, 1 is perfect). Each is the best of many on the very {nouns.items} it was chosen on, so these numbers are too high."
    )
    numbers = contents.prepared.labels
    wide = contents.wide.sort_values(("feature", "auroc_train"), ascending=False, kind="stable", na_position="last")
    rows = []
    for name, row in wide.iterrows():
        feature, single, neuron = row["feature"], row["unit"], row["neuron"]
        n_items = numbers["train"].get(name) if numbers is not None else None
        unit = f"{int(feature['unit'])}, layer {int(feature['layer'])}" if is_number(feature["unit"]) else NONE
        rows.append(
            (
                escape(name),
                count(n_items),
                unit,
                decimal(feature["auroc_train"], 3),
                _named(escape(single["name"]), single) if is_number(single["auroc_train"]) else NONE,
                _named(escape(neuron["name"]), neuron) if is_number(neuron["auroc_train"]) else NONE,
            )
        )
    header = (
        first_upper(nouns.label), f"Training {nouns.items}", "Feature", "Training AUROC", first_upper(nouns.unit), "Raw neuron",
    )  # fmt: skip
    return [text, table(header, rows, right=(1, 3)), written(inference.training_items(nouns, wording.type))]


def _named(name: str, row: pd.Series) -> str:
    return f"{name} ({decimal(row['auroc_train'], 3)})"
