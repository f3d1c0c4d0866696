"""How faithful the features are, in parts: what the gene or amino acid alone explains, what the features add, and how sure the loss recovered is."""

from __future__ import annotations

from typing import Any

from sae_genomics.report.markdown import NONE, count, decimal, is_number, percent, span, table
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording, first_upper
from sae_genomics.sae.quality import doubts


def loss_recovered(metrics: dict[str, Any]) -> str:
    """`0.953 (0.94–0.96)`, or without the interval where there is none."""
    value, interval = decimal(metrics.get("loss_recovered"), 3), metrics.get("loss_recovered_interval")
    if not interval or not all(is_number(end) for end in interval):
        return value
    return f"{value} ({decimal(interval[0], 3)}–{decimal(interval[1], 3)})"


def loss_words(known: list[LayerSummary], wording: Wording) -> str:
    """Of how many items that number is, and what the bracket means; nothing where it is not measured."""
    measured = {each.metrics.get("loss_items", each.metrics.get("loss_cells")) for each in known} - {0, None}
    if not measured:
        return ""
    items = wording.nouns.items
    text = f" It is measured on {span(measured, count)} held-out {items}, spread evenly over the file."
    groups = {each.metrics.get("loss_groups") for each in known} - {None}
    if groups:
        text = text.replace(f" held-out {items},", f" held-out {items} of {span(groups, count)} groups,")
    if any(each.metrics.get("loss_recovered_interval") for each in known):
        over = f"whole groups of these {items}" if groups else f"these {items}"
        text += f" In brackets the 95 % interval, by a bootstrap over {over}."
    elif groups:
        text += " There is no interval: a bootstrap over so few groups would be too narrow."
    if any(each.metrics.get("loss_recovered") is None for each in known):
        text += f" {NONE}: putting the mean in the layer's place costs the model nothing clear, so there is nothing to recover."
    return text


def identity_table(known: list[LayerSummary], heldout: bool, wording: Wording) -> str:
    """One row per layer: variance that the unit explains, FVU of the whole and of the rest. Empty where nothing says so."""
    before = "" if heldout else "train_"
    measured = [each for each in known if is_number(each.metrics.get(f"{before}identity_variance"))]
    if not measured:
        return ""
    centred, nouns = any(each.metrics.get("centre") == "unit" for each in measured), wording.nouns
    unit = nouns.unit
    does = (
        f"Here these means were subtracted before the autoencoder (`sae.centre: unit`), so that the features need not say which {unit} "
        "it is; FVU counts means and features together."
        if centred
        else "Here the autoencoder read the whole activation (`sae.centre: none`), so features are spent on that too."
    )
    text = (
        f"Part of an activation says *which {unit}* the token is, often most of it. *{first_upper(unit)} identity* is the share of the variance "
        f"that each {unit}'s mean activation over training {nouns.items} explains by itself. *FVU of the rest* is the share that the reconstruction misses of what "
        f"these means leave: of what the {nouns.item}'s context adds. An autoencoder that gave the means alone would have 1 there. {does}"
    )
    losses = any(is_number(each.metrics.get("loss_recovered_by_means")) for each in measured)
    rows = [
        (
            str(each.layer),
            percent(each.metrics.get(f"{before}identity_variance")),
            decimal(each.metrics.get(f"{before}fvu"), 3),
            decimal(each.metrics.get(f"{before}fvu_centred"), 3),
            *([decimal(each.metrics.get("loss_recovered_by_means"), 3)] if losses else []),
        )
        for each in measured
    ]
    last = ["Loss recovered by the means alone"] if losses else []
    header = ("Layer", f"{first_upper(unit)} identity", "FVU, whole activation", "FVU of the rest", *last)
    return f"{text}\n\n{table(header, rows, right=range(len(header)))}"


def share_of_units(known: list[dict[str, Any]], heldout: bool, wording: Wording) -> str:
    """One sentence: what the unit alone explains, and what share of the rest the features reproduce. known: metrics of each layer."""
    before = "" if heldout else "train_"
    identity = span((each.get(f"{before}identity_variance") for each in known), percent)
    key = f"{before}fvu_centred"
    rest = span((max(0.0, 1 - each[key]) for each in known if is_number(each.get(key))), percent)
    if NONE in (identity, rest):
        return ""
    return f" Which {wording.nouns.unit} a token is explains {identity} of that variance by itself; of the rest the features reproduce {rest}."


def who_reproduces(known: list[dict[str, Any]], wording: Wording) -> str:
    """The subject of `... reproduce N % of the variance`."""
    return (
        f"{wording.nouns.units}' means and features together"
        if any(each.get("centre") == "unit" for each in known)
        else "features"
    )


def doubts_of(metrics: dict[str, Any], wording: Wording) -> list[str]:
    """One sentence per reason to doubt a layer's autoencoder."""
    return doubts(metrics, wording.nouns.units, wording.nouns.items)
