"""The main findings in plain sentences, each with what it is to be compared with and how sure it is."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.report.faithfulness import doubts_of, share_of_units, who_reproduces
from sae_genomics.report.markdown import (
    decimal,
    escape,
    is_number,
    listing,
    percent,
    span,
)
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording, first_upper

FEW_ITEMS = 20  # below this many held-out items of a label, its AUROC is shaky


def reconstruction(layers: list[LayerSummary], wording: Wording) -> str:
    """How much of the model's activations the features keep."""
    known = [each for each in layers if is_number(each.metrics.get("fvu"))]
    if not known:
        return ""
    explained = span((1 - each.metrics["fvu"] for each in known), lambda share: f"{100 * share:.0f} %")
    l0 = span((each.metrics.get("l0") for each in known), lambda value: f"{value:.0f}")
    dead = span((each.metrics.get("dead_share") for each in known), percent)
    where = "in its one layer" if len(known) == 1 else f"over the {len(known)} layers"
    metrics = [each.metrics for each in known]
    who, rest = who_reproduces(metrics, wording), share_of_units(metrics, heldout=True, wording=wording)
    active = f" with {l0} features active at a time" if l0 != "–" else ""
    unused = f" {dead} of the features are dead: they never fire there." if dead != "–" else ""
    stable = span((each.metrics.get("stability") for each in known), percent)
    again = f" An autoencoder trained with another seed finds {stable} of the features again." if stable != "–" else ""
    return (
        f"**Faithfulness.** On held-out {wording.nouns.items} the {who} reproduce {explained} of the variance of the model's "
        f"activations ({where}){active}.{rest}{unused}{again}"
    )


def doubtful(layers: list[LayerSummary], wording: Wording) -> str:
    """Which layers' autoencoders are to be read with care."""
    found = [(each.layer, doubts_of(each.metrics, wording)) for each in layers if each.metrics]
    named = [f"layer {layer} ({escape('; '.join(texts))})" for layer, texts in found if texts]
    return f"**Read with care**: {listing(named)}." if named else ""


def labels(wide: pd.DataFrame | None, fdr: float, wording: Wording) -> str:
    """How well single features tell labels apart, beside single units and raw neurons."""
    if wide is None:
        return ""
    nouns = wording.nouns
    tested = wide[wide[("feature", "auroc")].notna()]
    if tested.empty:
        return ""
    has_q = tested[("feature", "q_value")].notna()
    any_q = has_q.any()
    testable = " that could be tested" if any_q and not has_q.all() else ""
    tested = tested[has_q] if any_q else tested
    sure = f"q < {fdr:g}" if any_q else "not tested: too few held-out groups"
    good = tested[(tested[("feature", "auroc")] >= 0.9) & ((tested[("feature", "q_value")] < fdr) | (not any_q))]
    best = tested.iloc[0]
    text = (
        f"**{first_upper(nouns.labels)}.** {len(good)} of {len(tested)} {nouns.labels}{testable} have a single feature that tells them from "
        f"all other {nouns.items} with an AUROC of 0.90 or more on held-out {nouns.items} ({sure}). The clearest is {escape(str(tested.index[0]))}: "
        f"feature {int(best['feature', 'unit'])} of layer {int(best['feature', 'layer'])} reaches "
        f"{decimal(best['feature', 'auroc'], 3)} (95 % interval {interval(best['feature'])})"
    )
    beside = []
    if is_number(best.get(("unit", "auroc"))):
        beside.append(
            f"the best {wording.single_unit}, {escape(best['unit', 'name'])}, {decimal(best['unit', 'auroc'], 3)}"
        )
    if is_number(best.get(("neuron", "auroc"))):
        beside.append(f"the best raw neuron {decimal(best['neuron', 'auroc'], 3)}")
    text += f"; {listing(beside)}." if beside else "."
    against = []
    for kind, name in (("unit", f"best {wording.single_unit}"), ("neuron", "best raw neuron")):
        pairs = tested[tested[(kind, "auroc")].notna()]
        if len(pairs):
            above = int((pairs["feature", "auroc"] > pairs[kind, "auroc"]).sum())
            against.append(f"above the {name} in {above} of {len(pairs)} {wording.types}")
    return text + (f" The best feature stands {listing(against)}." if against else "")


def few_items(wide: pd.DataFrame | None, wording: Wording) -> str:
    """Which labels' numbers rest on few held-out items."""
    if wide is None:
        return ""
    few = wide.index[(wide[("feature", "n_items")] < FEW_ITEMS) & wide[("feature", "auroc")].notna()]
    if not len(few):
        return ""
    more = [f"{len(few) - 4} more {wording.types}"] if len(few) > 4 else []
    named, items = listing([escape(name) for name in few[:4]] + more), wording.nouns.items
    return f"Of {named} fewer than {FEW_ITEMS} {items} are held out: other {items} could change their figures much."


def interval(row: Any) -> str:
    """`0.95 to 1.00` of a row with low and high."""
    if not is_number(row.get("low")) or not is_number(row.get("high")):
        return "not known"
    return f"{decimal(row['low'])} to {decimal(row['high'])}"
