"""report.md, interventions: what features change in the model's predictions, what they can be used for, and what not."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.report import causal as of_causal
from sae_genomics.report import inference
from sae_genomics.report.causal import EDITS, LEVEL, METHODS, P_NULLS, Causal, outcome_name
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import (
    NONE,
    count,
    decimal,
    details,
    escape,
    feature_link,
    is_number,
    percent,
    probability,
    span,
    table,
)
from sae_genomics.report.wording import Wording, a, first_upper

MOST_SHOWN = 10
FIGURES = ("causal_effects", "causal_doses", "causal_reads_writes", "causal_steering")
Layers = list[tuple[int, Causal]]


def finding(contents: Contents) -> str:
    """Two or three sentences of the opening; empty without the stage."""
    layers = of_causal.of(contents.layers)
    tested = [(layer, each) for layer, each in layers if each.n_tested]
    if not tested:
        return ""
    text = f"**Interventions.** {_verdict(tested, contents)}"
    steered = _steered(layers)
    return " ".join(part for part in (text, _where_visible(tested, contents.wording), steered) if part)


def _done_to(contents: Contents) -> str:
    """What an ablated feature became."""
    unit = contents.wording.nouns.unit
    return {
        "zero": "taken out of the model",
        "mean": f"set to their mean at the {unit}",
        "resample": f"set to their value at a random {contents.wording.nouns.token} of the same {unit}",
    }[contents.config.causal.ablation]


def _edit(contents: Contents) -> str:
    """The edit, as a sentence."""
    nouns = contents.wording.nouns
    training = f"training {nouns.items}"
    return {
        "zero": "A feature is taken out by subtracting its part from the layer's activations, z · d, where it fires",
        "mean": f"Where a feature fires, its activation z is set to m, its mean over {nouns.tokens} of the same {nouns.unit} in {training}, zeros among "
        "them: (m − z) · d is added to the layer's activations",
        "resample": f"Where a feature fires, its activation z is set to z', its activation at a random {nouns.token} of the same {nouns.unit} in "
        f"{training}, which may be 0: (z' − z) · d is added to the layer's activations",
    }[contents.config.causal.ablation]


def _verdict(tested: Layers, contents: Contents) -> str:
    """How many features change their own targets beyond every null."""
    wording = contents.wording
    n, specific = sum(each.n_tested for _, each in tested), sum(each.n_specific for _, each in tested)
    where = "in the one layer here" if len(tested) == 1 else f"in {len(tested)} layers"
    nulls = "random directions, random features, the same edit at other tokens and random targets"
    targets = _own_targets(wording)
    of = f"{count(n)} features that were {_done_to(contents)} one by one, {where},"
    if not specific:
        return f"Of {of} none changes what the model predicts of {targets} more than four nulls explain ({nulls}; q ≤ {LEVEL:g})."
    changes = "changes" if specific == 1 else "change"
    return (
        f"Of {of} {count(specific)} {changes} what the model predicts of {targets} more than each of four nulls explains ({nulls}; "
        f"q ≤ {LEVEL:g})."
    )


def _where_visible(tested: Layers, wording: Wording) -> str:
    """The count of `_verdict` is of hidden tokens; this one is of visible ones. Empty where only one of the two was measured."""
    if not all(len(each.main) and each.main["masked"].astype(bool).all() for _, each in tested):
        return ""
    q = [each.of("token", of_causal.VISIBLE)["q_value"].dropna() for _, each in tested if len(each.effects)]
    n, specific = sum(len(each) for each in q), sum(int((each <= LEVEL).sum()) for each in q)
    if not n:
        return ""
    return (
        f"That is where {wording.nouns.tokens} are hidden from the model. Where it sees them, and can copy them, {count(specific)} of {count(n)} "
        f"{'does' if specific == 1 else 'do'}."
    )


def _own_targets(wording: Wording) -> str:
    nouns = wording.nouns
    return (
        f"the {nouns.units} that they fire on" if wording.kind == "cells" else f"the {nouns.tokens} that they fire on"
    )


def _steered(layers: Layers) -> str:
    """The clearest pair of labels: how far the items went, beside random directions."""
    rows = [each.steering.assign(layer=layer) for layer, each in layers if len(each.steering)]
    known = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"p_toward": []})
    known = known[known["p_toward"].notna()]
    if known.empty:
        return ""
    best = known.sort_values(["p_toward", "toward"], ascending=[True, False], kind="stable").iloc[0]
    sure = "beyond" if best["q_toward"] <= LEVEL else "not beyond"
    way = METHODS.get(best["method"], best["method"])
    return (
        f"Steered from {escape(best['from_label'])} toward {escape(best['to_label'])} ({way}, layer {int(best['layer'])}), embeddings go "
        f"{percent(best['toward'])} of the way; random directions of the same length go at most {percent(_most(best, 'toward'))}. "
        f"That is {sure} chance (q {probability(best['q_toward'])} over all steps of the layer)."
    )


def _most(row: Any, name: str) -> float:
    """The largest value of either kind of random directions."""
    return float(max(row[f"{name}_random_high"], row[f"{name}_shuffled_high"]))


def section(contents: Contents) -> str:
    """The section, with its title; empty where the stage left nothing."""
    layers = of_causal.of(contents.layers)
    if not layers:
        return ""
    parts = ["## What features do to the model's predictions", *_effects(contents, layers), *_doses(contents, layers)]
    parts += [*_scores(contents, layers), *_steering(contents, layers), *_genes(contents, layers)]
    return "\n\n".join(part for part in parts if part)


def _effects(contents: Contents, layers: Layers) -> list[str]:
    wording, nouns = contents.wording, contents.wording.nouns
    tested = [(layer, each) for layer, each in layers if each.n_tested]
    if not tested:
        note = next((each.notes["features"] for _, each in layers if "features" in each.notes), None)
        return [f"No feature was edited{': ' + escape(note) if note else ''}."]
    screens = [each.screen for _, each in tested if each.screen is not None]
    screen = (
        f" All features of a layer were ranked first, by one gradient; its rank correlation with the exact effects is {span(screens, decimal)}."
        if screens
        else ""
    )
    return [
        _verdict(tested, contents),
        f"{_edit(contents)}; all that the autoencoder does not explain stays. The model goes on from there. Effects are measured on held-out {nouns.items} in which the feature fires, and "
        f"averaged per {nouns.item} first. *Own* targets come from training {nouns.items}. *Matched* targets are others of the same {nouns.items} "
        f"that are like them. Specificity is the standardised difference of both. Where the {nouns.tokens} are *hidden*, the model must predict "
        f"them; where they are not, it can copy them.{screen}",
        contents.figure("causal_effects", "Specificity of features beside the nulls"),
        _counts(tested, wording),
        f"The columns on nulls count features with p ≤ {LEVEL:g} against that null alone, of those tested; chance gives {percent(LEVEL)} of them. "
        "*Specific*: the largest of the p-values, corrected for all features of the layer, passes.",
        inference.line(contents.layers, "causal_features"),
        *_strongest(contents, tested),
    ]


def _counts(tested: Layers, wording: Wording) -> str:
    rows = []
    for layer, each in tested:
        for outcome, masked in _outcomes(each.effects):
            found = each.of(outcome, masked)
            n = int(found["q_value"].notna().sum())
            passed = [_passed(found[name]) for name in P_NULLS]
            rows.append(
                (
                    str(layer),
                    first_upper(outcome_name(outcome, masked, wording)),
                    count(n),
                    *passed,
                    count((found["q_value"] <= LEVEL).sum()),
                )
            )
    header = ("Layer", "What is predicted", "Tested", *(f"Beyond {name}" for name in P_NULLS.values()), "Specific")
    return table(header, rows, right=(0, *range(2, len(header))))


def _passed(p: pd.Series) -> str:
    return count((p <= LEVEL).sum()) if p.notna().any() else NONE


def _outcomes(effects: pd.DataFrame) -> list[tuple[str, bool]]:
    pairs = effects[["outcome", "masked"]].drop_duplicates()
    order = {"token": 0, "from_item": 1, "embedding": 2}
    found = [(str(outcome), bool(masked)) for outcome, masked in zip(pairs["outcome"], pairs["masked"], strict=True)]
    return sorted(found, key=lambda pair: (order.get(pair[0], 9), not pair[1]))


def _strongest(contents: Contents, tested: Layers) -> list[str]:
    rows = pd.concat([each.main.assign(layer=layer) for layer, each in tested], ignore_index=True)
    rows = rows[rows["p_value"].notna()].sort_values("p_value", kind="stable").head(MOST_SHOWN)
    units = {
        (layer, int(feature)): names
        for layer, each in tested
        if len(each.scores)
        for feature, names in zip(each.scores["feature"], each.scores["own_units"], strict=True)
    }
    nouns = contents.wording.nouns
    header = (
        "Feature", f"Fires most often on these {nouns.units}", first_upper(nouns.items), "Own", "Matched", "Specificity", "95 % interval",
        *(f"p, {name}" for name in P_NULLS.values()), "q",
    )  # fmt: skip
    made = [
        (
            f"{feature_link(contents.dashboard, row['layer'], row['feature'])}, layer {int(row['layer'])}",
            escape((units.get((int(row["layer"]), int(row["feature"]))) or NONE).replace(",", ", ")),
            count(row["n_items"]), decimal(row["effect_own"], 3), decimal(row["effect_matched"], 3), decimal(row["specificity"]),
            _interval(row, "specificity"), *(probability(row[name]) for name in P_NULLS), probability(row["q_value"]),
        )
        for row in rows.to_dict("records")
    ]  # fmt: skip
    outcome = tested[0][1].main.iloc[0]
    said = outcome_name(str(outcome["outcome"]), bool(outcome["masked"]), contents.wording)
    body = table(header, made, right=range(2, len(header)))
    return [
        f"### The features with the smallest p\n\nWhat is predicted: {said}.",
        body,
        inference.line(contents.layers, "causal_features"),
    ]


def _interval(row: Any, name: str) -> str:
    if not is_number(row[f"{name}_low"]):
        return NONE
    return f"{decimal(row[f'{name}_low'])} to {decimal(row[f'{name}_high'])}"


def _doses(contents: Contents, layers: Layers) -> list[str]:
    known = [(layer, each.curves) for layer, each in layers if len(each.curves)]
    if not known:
        return []
    curves = pd.concat([rows for _, rows in known], ignore_index=True)
    n, monotone = len(curves), int((curves["monotonicity"].abs() >= 0.9).sum())
    stopped = int((curves["stopped_above"].notna() | curves["stopped_below"].notna()).sum())
    text = (
        f"The activation of {count(n)} features was multiplied{' instead' if contents.config.causal.ablation == 'zero' else ''}, by a *dose*. Dose 1 changes nothing, 0 takes the feature out. The effect of "
        f"{count(monotone)} of them goes one way with the dose (rank correlation of 0.9 or more, either sign). {count(stopped)} "
        f"{'was' if stopped == 1 else 'were'} stopped where other targets changed more than `causal.off_target` allows. "
        "A curve by itself is no test: it has no null."
    )
    return ["### Dose and response", text, contents.figure("causal_doses", "Effect on own targets by dose")]


def _scores(contents: Contents, layers: Layers) -> list[str]:
    known = [(layer, each.scores) for layer, each in layers if len(each.scores) and each.scores["reads"].notna().any()]
    if not known:
        return []
    nouns = contents.wording.nouns
    rows = []
    for layer, scores in known:
        tested, written = scores[scores["reads"].notna()], scores[scores["writes"].notna()]
        steers = scores["steers"].dropna()
        rows.append(
            (
                str(layer), count(len(tested)), decimal(tested["reads"].median()), decimal(tested["reads_random"].median()),
                count((tested["q_reads"] < LEVEL).sum()), count(len(written)), count((written["q_writes"] < LEVEL).sum()),
                f"{count(steers.eq(True).sum())} of {count(len(steers))}" if len(steers) else NONE,
            )
        )  # fmt: skip
    header = (
        "Layer", "Features with an input score", "Median", "Random directions, median", f"Read (q < {LEVEL:g})", "Features with an output score",
        f"Write (q < {LEVEL:g})", "Steer, of those with a dose curve",
    )  # fmt: skip
    text = (
        f"A feature *reads* when the {nouns.unit} alone tells where it fires. Its input score is an AUROC: how often a {nouns.token} on which it fires is of "
        f"{a(nouns.unit)} with a higher firing rate than {a(nouns.token)} on "
        f"which it does not. Rates come from training {nouns.items}, firings from held-out ones. Random directions that fire as often "
        "stand beside it, because any direction of a layer reads something. A feature *writes* when taking it out is specific, see above. It "
        "*steers* when it writes and a larger dose does more. Reading and writing are two things: a feature can do either without the other."
    )
    return [
        "### What features read and write", text, contents.figure("causal_reads_writes", "Input score and output score"),
        table(header, rows, right=range(len(header))), inference.line(contents.layers, "causal_reads_writes"),
    ]  # fmt: skip


def _steering(contents: Contents, layers: Layers) -> list[str]:
    nouns = contents.wording.nouns
    known = [(layer, each.steering) for layer, each in layers if len(each.steering)]
    if not known:
        note = next((each.notes["steering"] for _, each in layers if "steering" in each.notes), None)
        return [f"### Steering\n\nNothing was steered: {escape(note)}."] if note else []
    text = (
        f"Held-out {nouns.items} of one {nouns.label} are moved toward another: at a layer a vector is added to every {nouns.token}. It is the difference of "
        f"the means of training {nouns.items}, or the sum of the features that differ most, or a concept's vector. *Toward* is the share of the way from one "
        f"mean embedding to the other. *Markers* is how much more the prediction of the target's marker {nouns.units} rises than that of other {nouns.units}; "
        "all of them are hidden from the model. Both stand beside two kinds of vectors of the same length: *random* ones, and *halves*, "
        f"differences between random halves of the same training {nouns.items} that hold as many of either {nouns.label}. p is the larger of both."
    )
    parts = [
        "### Steering",
        text,
        contents.figure("causal_steering", f"How far steered {contents.wording.nouns.items} go, by dose"),
    ]
    last = max(layer for layer, _ in known)
    unmoved = [layer for layer, rows in known if (rows["toward"].abs() < 1e-6).all()]
    if unmoved == [last]:
        parts.append(
            f"After layer {last} the embedding cannot move: it is read from a special token, and only {nouns.tokens} are edited."
        )
    for index, (layer, rows) in enumerate(known):
        shown = rows[rows["p_toward"].notna() | rows["p_markers"].notna()]
        body = _steering_tables(shown, nouns.items)
        parts.append(
            details(f"Layer {layer}: steered {nouns.items}", body) if index else f"#### Layer {layer}\n\n{body}"
        )
    parts.append(inference.line(contents.layers, "causal_steering"))
    parts.append(
        f"All doses: `causal_steering.parquet` in each layer's folder. The {nouns.items} before and after, with what the model predicts of them, are in "
        "`steered.h5ad` beside it, which scanpy opens."
    )
    return parts


def _steering_tables(rows: pd.DataFrame, items: str) -> str:
    """One table of embeddings, one of markers."""
    parts = []
    for name, title in (("toward", "Toward"), ("markers", "Markers")):
        near = name == "toward"
        header = (
            "From", "To", "Along", "Dose", first_upper(items), title, "95 % interval", "Highest random", "Highest of halves", "p", "q",
            *(("Nearer to the target", "before") if near else ()),
        )  # fmt: skip
        made = [
            (
                escape(row["from_label"]), escape(row["to_label"]), METHODS.get(row["method"], row["method"]), f"{row['dose']:g}",
                count(row["n_items"]), decimal(row[name]), _interval(row, name), decimal(row[f"{name}_random_high"]),
                decimal(row[f"{name}_shuffled_high"]), probability(row[f"p_{name}"]), probability(row[f"q_{name}"]),
                *((percent(row["nearer_after"]), percent(row["nearer_before"])) if near else ()),
            )
            for row in rows.to_dict("records")
        ]  # fmt: skip
        parts.append(table(header, made, right=range(3, len(header))))
    return "\n\n".join(parts)


def _genes(contents: Contents, layers: Layers) -> list[str]:
    known = [each.genes.assign(layer=layer) for layer, each in layers if len(each.genes)]
    if not known:
        return []
    nouns = contents.wording.nouns
    header = (
        "Feature", first_upper(nouns.unit), "Edit", "Share of the feature on it", first_upper(nouns.items), "Correlation", "95 % interval",
        f"Random {nouns.units}, mean", "highest", "p", "q", "Change", f"Random {nouns.units}, mean", "p", "By the feature",
    )  # fmt: skip
    made = [
        (
            f"{feature_link(contents.dashboard, row['layer'], row['feature'])}, layer {int(row['layer'])}", escape(row["unit_name"]),
            EDITS.get(row["edit"], row["edit"]), percent(row["share_on_unit"]), count(row["n_items"]), decimal(row["correlation"]),
            _interval(row, "correlation"), decimal(row["correlation_random"]), decimal(row["correlation_random_high"]),
            probability(row["p_correlation"]), probability(row["q_correlation"]), decimal(row["effect"], 3), decimal(row["effect_random"], 3),
            probability(row["p_effect"]), decimal(row["effect_feature"], 3),
        )
        for row in pd.concat(known, ignore_index=True).to_dict("records")
    ]  # fmt: skip
    text = (
        f"A {nouns.unit} is deleted from {nouns.items}, or raised to the 99th percentile of its values. Beside it the feature that reads it most exclusively is taken out "
        f"of the same {nouns.items}. *Correlation*: do both change the same predictions of the {nouns.item}'s other {nouns.units}? *Change*: the root mean square "
        f"change of these. Random {nouns.units} of the same {nouns.items} with the nearest values were edited in the same way."
    )
    return [
        f"### {first_upper(nouns.units)} deleted and raised", text, table(header, made, right=range(3, len(header))),
        inference.line(contents.layers, "causal_genes"),
    ]  # fmt: skip
