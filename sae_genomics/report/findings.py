"""The main findings in plain sentences, each with what it is to be compared with and how sure it is."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.report import groups
from sae_genomics.report.markdown import (
    count,
    decimal,
    escape,
    is_number,
    listing,
    percent,
    span,
)
from sae_genomics.report.summary import LayerSummary
from sae_genomics.sae.quality import doubts

FEW_CELLS = 20  # below this many held-out cells of a type, its AUROC is shaky


def reconstruction(layers: list[LayerSummary], k: int) -> str:
    """How much of the model's activations the features keep."""
    known = [each for each in layers if is_number(each.metrics.get("fvu"))]
    if not known:
        return ""
    explained = span((1 - each.metrics["fvu"] for each in known), lambda share: f"{100 * share:.0f} %")
    l0 = span((each.metrics.get("l0") for each in known), lambda value: f"{value:.0f}")
    dead = span((each.metrics.get("dead_share") for each in known), percent)
    where = "in its one layer" if len(known) == 1 else f"over the {len(known)} layers"
    active = f" with {l0} features active at a time" if l0 != "–" else ""
    unused = f" {dead} of the features are dead: they never fire there." if dead != "–" else ""
    stable = span((each.metrics.get("stability") for each in known), percent)
    again = f" An autoencoder trained with another seed finds {stable} of the features again." if stable != "–" else ""
    return (
        f"**Faithfulness.** On held-out cells the features reproduce {explained} of the variance of the model's "
        f"activations ({where}){active}.{unused}{again}"
    )


def doubtful(layers: list[LayerSummary]) -> str:
    """Which layers' autoencoders are to be read with care."""
    found = [(each.layer, doubts(each.metrics)) for each in layers if each.metrics]
    named = [f"layer {layer} ({escape('; '.join(texts))})" for layer, texts in found if texts]
    return f"**Read with care**: {listing(named)}." if named else ""


def annotation(layers: list[LayerSummary], fdr: float) -> str:
    """How many features match known biology, against shuffled genes and raw neurons."""
    known = [(each.layer, each.annotation) for each in layers if each.annotation is not None]
    if not known:
        nothing = next((each.nothing_tested for each in layers if each.nothing_tested), None)
        return f"**Known biology.** There was nothing to test: {escape(nothing)}." if nothing else ""
    n_all, n_own = (sum(getattr(each, name) for _, each in known) for name in ("n_units", "n_annotated"))
    text = (
        f"**Known biology.** {count(n_own)} of {count(n_all)} features that could be tested "
        f"({span((each.share for _, each in known), percent)}{' a layer' if len(known) > 1 else ''}) match at least one known gene set "
        f"(q < {fdr:g})"
    )
    shuffled = [each for _, each in known if each.shuffled]
    neurons = [each for _, each in known if is_number(each.neurons)]
    compared = []
    if shuffled:
        means, highest = (
            span((each.shuffled_mean for each in shuffled), percent),
            max(each.shuffled_max for each in shuffled),
        )
        compared.append(f"{means} of them do with the genes shuffled (never more than {percent(highest)})")
    if neurons:
        n_known, n_neurons = (
            sum(getattr(each, name) for each in neurons) for name in ("n_neurons_annotated", "n_neurons")
        )
        shares = span((each.neurons for each in neurons), percent)
        compared.append(f"{count(n_known)} of {count(n_neurons)} raw neurons ({shares}) do")
    text += f"; {listing(compared)}." if compared else ", but no null was measured, so this says little."
    if shuffled:
        above = [layer for layer, each in known if each.beats_every_shuffle]
        text += " " + _verdict(len(above), len(known), "that of every shuffle")
    if neurons:
        above = [layer for layer, each in known if is_number(each.neurons) and each.share > each.neurons]
        text += " " + _verdict(len(above), len(neurons), "that of the raw neurons")
    return text


def _verdict(n_true: int, n_all: int, what: str) -> str:
    """In how many layers the features' share lies above `what`."""
    if n_all == 1:
        return f"The features' share is {'' if n_true else '**not** '}above {what}."
    if n_true == 0:
        return f"In **no** layer is the features' share above {what}."
    where = f"all {n_all}" if n_true == n_all else f"{n_true} of {n_all}"
    return f"In {where} layers the features' share is above {what}."


def cell_types(wide: pd.DataFrame | None, fdr: float) -> str:
    """How well single features tell cell types apart, beside single genes and raw neurons."""
    if wide is None:
        return ""
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
        f"**Cell types.** {len(good)} of {len(tested)} cell types{testable} have a single feature that tells them from all other "
        f"cells with an AUROC of 0.90 or more on held-out cells ({sure}). The clearest is {escape(str(tested.index[0]))}: "
        f"feature {int(best['feature', 'unit'])} of layer {int(best['feature', 'layer'])} reaches "
        f"{decimal(best['feature', 'auroc'], 3)} (95 % interval {interval(best['feature'])})"
    )
    beside = []
    if is_number(best.get(("gene", "auroc"))):
        beside.append(f"the best single gene, {escape(best['gene', 'name'])}, {decimal(best['gene', 'auroc'], 3)}")
    if is_number(best.get(("neuron", "auroc"))):
        beside.append(f"the best raw neuron {decimal(best['neuron', 'auroc'], 3)}")
    text += f"; {listing(beside)}." if beside else "."
    against = []
    for kind, name in (("gene", "best single gene"), ("neuron", "best raw neuron")):
        pairs = tested[tested[(kind, "auroc")].notna()]
        if len(pairs):
            above = int((pairs["feature", "auroc"] > pairs[kind, "auroc"]).sum())
            against.append(f"above the {name} in {above} of {len(pairs)} types")
    return text + (f" The best feature stands {listing(against)}." if against else "")


def certainty(layers: list[LayerSummary], wide: pd.DataFrame | None, plan: dict[str, Any]) -> str:
    """How sure one can be of all this, in words that follow from the numbers."""
    parts = []
    if plan.get("n_heldout"):
        parts.append(
            f"Every statement about cells comes from {count(plan['n_heldout'])} held-out cells{groups.heldout(plan)}, which no "
            "autoencoder was trained on; which feature to look at was chosen on the other cells."
        )
    counted = groups.behind(wide, plan)
    if counted:
        parts.append(counted)
    if wide is not None:
        n_cells = wide[("feature", "n_cells")]
        few = wide.index[(n_cells < FEW_CELLS) & wide[("feature", "auroc")].notna()]
        if len(few):
            more = [f"{len(few) - 4} more types"] if len(few) > 4 else []
            named = listing([escape(name) for name in few[:4]] + more)
            parts.append(
                f"Of {named} fewer than {FEW_CELLS} cells are held out: other cells could change their figures much."
            )
    repeats = max((len(each.annotation.shuffled) for each in layers if each.annotation is not None), default=0)
    if repeats:
        parts.append(
            f"Beating all {repeats} shuffles happens by chance once in {repeats + 1} times a layer."
            if repeats > 1
            else "The shuffled-gene null was drawn only once: set `validation.shuffles` to 10 or more."
        )
    parts.append(
        "A match with a gene set or a cell type is an association; it does not show that the model uses the feature for it."
    )
    return "**How sure.** " + " ".join(parts)


def interval(row: Any) -> str:
    """`0.95 to 1.00` of a row with low and high."""
    if not is_number(row.get("low")) or not is_number(row.get("high")):
        return "not known"
    return f"{decimal(row['low'])} to {decimal(row['high'])}"
