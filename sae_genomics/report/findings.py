"""The main findings in plain sentences, each with what it is to be compared with and how sure it is."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.report import groups
from sae_genomics.report.faithfulness import identity_words, who_reproduces
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
    metrics = [each.metrics for each in known]
    who, rest = who_reproduces(metrics), identity_words(metrics, heldout=True)
    active = f" with {l0} features active at a time" if l0 != "–" else ""
    unused = f" {dead} of the features are dead: they never fire there." if dead != "–" else ""
    stable = span((each.metrics.get("stability") for each in known), percent)
    again = f" An autoencoder trained with another seed finds {stable} of the features again." if stable != "–" else ""
    return (
        f"**Faithfulness.** On held-out cells the {who} reproduce {explained} of the variance of the model's "
        f"activations ({where}){active}.{rest}{unused}{again}"
    )


def doubtful(layers: list[LayerSummary]) -> str:
    """Which layers' autoencoders are to be read with care."""
    found = [(each.layer, doubts(each.metrics)) for each in layers if each.metrics]
    named = [f"layer {layer} ({escape('; '.join(texts))})" for layer, texts in found if texts]
    return f"**Read with care**: {listing(named)}." if named else ""


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
    repeats = max((each.annotation.n_shuffles for each in layers if each.annotation is not None), default=0)
    if repeats:
        parts.append(
            f"Beating all {repeats} shuffles happens by chance once in {repeats + 1} times a layer."
            if repeats > 1
            else "The shuffled-gene null was drawn only once: set `validation.shuffles` to 20 or more."
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
