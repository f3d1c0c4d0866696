"""report.md, features over layers: which persist, which fire together, what k of them explain, which unnamed ones are worth a look."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.artifacts import PERSISTENCE
from sae_genomics.report.contents import Contents
from sae_genomics.report.cross_layer import BORN, DIED, STEPS, above_null, layers_of, passages
from sae_genomics.report.inference import written
from sae_genomics.report.markdown import (
    NONE,
    count,
    decimal,
    escape,
    feature_link,
    is_number,
    percent,
    probability,
    span,
    table,
)
from sae_genomics.report.wording import first_upper

FIGURES = ("layers_flow", "layers_modules", "layers_variance")
MOST_MODULES, MOST_CANDIDATES, MOST_CAUSES = 20, 12, 12
_METHODS = ("features", "pca_per_token", "pca", "ica", "random")


def finding(contents: Contents) -> str:
    """The point of the opening: what persists and what fires together; empty without tables."""
    parts = [text for text in (_persistence(contents), _modules_said(contents)) if text]
    return f"**Over layers.** {' '.join(parts)}" if parts else ""


def _persistence(contents: Contents) -> str:
    steps = [each for each in passages(contents.run_results) if each.share is not None]
    if not steps:
        return ""
    text = f"{_span(each.share for each in steps)} of a layer's features have a match in the next layer"
    ceilings, floors = [each.ceiling for each in steps if each.ceiling is not None], [each.floor for each in steps]
    bounds = []
    if ceilings:
        bounds.append(f"two autoencoders of one layer share {_span(ceilings)}, which is the most to expect")
    if any(floor is not None for floor in floors):
        bounds.append(
            f"with {contents.wording.nouns.tokens} permuted within their {contents.wording.nouns.unit} {_span(floors)} match"
        )
    if without_learning := [each.untrained for each in steps if each.untrained is not None]:
        bounds.append(f"{_span(without_learning)} match features of an autoencoder on an untrained model")
    return text + (": " + "; ".join(bounds) if bounds else "") + "."


def _modules_said(contents: Contents) -> str:
    all_, passing = contents.run_results.table("module_summary"), above_null(contents.run_results)
    if all_ is None or passing is None:
        return ""
    items = contents.wording.nouns.items
    if all_.empty:
        return f"No module of features fires together more often than chance on training {items}."
    return (
        f"{count(len(passing))} of {count(len(all_))} modules of features also fire together on held-out {items}, above what chance gives "
        f"(q < {contents.config.validation.fdr:g})."
    )


def _span(values: Any) -> str:
    return span(list(values), percent)


def section(contents: Contents) -> str:
    """The section, with its title; empty where nothing of it is there."""
    made = [_passages, _modules, _variance, _novelty, _attribution]
    parts = [text for text in (make(contents) for make in made) if text]
    if not parts:
        return ""
    return "\n\n".join(["## Features over layers", *parts, _files(contents)])


def _passages(contents: Contents) -> str:
    steps, nouns = passages(contents.run_results), contents.wording.nouns
    if not steps:
        return ""
    header = (
        "Layers",
        "Features",
        "In the next layer",
        "Ceiling",
        "Floor",
        "Untrained model",
        "Of what can be reached",
    )
    rows = [
        (
            f"{each.first} → {each.second}", count(each.n_features), _share(each.share), _share(each.ceiling), _share(each.floor),
            _share(each.untrained), _share(each.relative),
        )
        for each in steps
    ]  # fmt: skip
    words = (*STEPS, DIED)
    fates = [
        (
            f"{each.first} → {each.second}",
            *(count(each.left.get(word, 0)) for word in words),
            count(each.right.get(BORN, 0)),
        )
        for each in steps
        if each.left or each.right
    ]
    parts = [
        _persistence(contents),
        f"A feature has a match where its activations go with those of a feature of the next layer, {nouns.token} by {nouns.token}. *Ceiling*: the same "
        f"share in a second autoencoder of the same layer, trained with another seed. *Floor*: the same with {nouns.tokens} permuted within their "
        f"{nouns.unit}, so that only the {nouns.unit} is left. *Untrained model*: features of the layer that match one of an autoencoder on the next layer "
        "of a model of the same shape with random weights: what they have in common comes from data and architecture. "
        "*Of what can be reached*: 0 % is the floor, 100 % the ceiling.",
        *_no_untrained(contents),
        table(header, rows, right=range(1, len(header))) if any(each.share is not None for each in steps) else "",
        _inference(contents, "persistence"),
        contents.figure("layers_flow", "Features from layer to layer: persistent, split, merged, born, died"),
        f"What becomes of the features of the first layer, and how many of the second are new. *By {nouns.unit} alone*: they match, but no better than "
        f"with {nouns.tokens} permuted within their {nouns.unit}."
        if fates
        else "",
        table(("Layers", "Persist", "Split", "Merge", f"By {nouns.unit} alone", "Die", "Born"), fates, right=range(1, 7)) if fates else "",
        _inference(contents, "fates") if fates and contents.run_results.table("persistence") is None else "",
    ]  # fmt: skip
    return "\n\n".join(part for part in ("### Which features persist", *parts) if part)


def _no_untrained(contents: Contents) -> list[str]:
    """Why the column is empty and how to have it filled, where it is."""
    steps = [each for each in passages(contents.run_results) if each.share is not None]
    if not steps or any(each.untrained is not None for each in steps):
        return []
    path = contents.run_results.files.get("persistence")
    note = PERSISTENCE.note(path) if path is not None else None
    return [f"The column *Untrained model* has no values. Of the table: {escape(note)}."] if note else []


def _share(value: float | None) -> str:
    return percent(value) if value is not None else NONE


def _modules(contents: Contents) -> str:
    passing, nouns = above_null(contents.run_results), contents.wording.nouns
    if passing is None:
        return ""
    parts = ["### Features that fire together", _modules_said(contents)]
    if len(passing):
        parts.append(
            f"A module is a group of features that are strong in the same {nouns.items}. A pair counts when it is above every pair of "
            f"{count(contents.config.cross_layer.module_draws)} tables with the same margins: each {nouns.item} has as many features, each feature as many "
            f"{nouns.items}. Features that fire on the same {nouns.unit} alone do not count. *Held out* is log2 of how often the module's features "
            f"meet on held-out {nouns.items}, against such tables; *by chance* is the largest of them."
        )
        parts.append(
            contents.figure("layers_modules", "Modules of features by layer, and how they go on in the next one")
        )
        shown = (
            passing.sort_values("score", ascending=False, kind="stable")
            .head(MOST_MODULES)
            .sort_values(["layer", "module"])
        )
        header = (
            "Layer",
            "Module",
            "Most frequent name of its features",
            "Features",
            first_upper(nouns.units),
            "Held out",
            "by chance, max",
            "q",
            "Consensus",
        )
        parts.append(table(header, [_module_row(row) for _, row in shown.iterrows()], right=(0, 1, 3, 5, 6, 7, 8)))
        if len(passing) > len(shown):
            parts.append(f"The {len(shown)} clearest of {count(len(passing))}; all in `module_summary.parquet`.")
        parts.append(_inference(contents, "module_summary"))
    elif note := contents.run_results.notes.get("module_summary"):
        parts.append(f"{first_upper(escape(note))}.")
    return "\n\n".join(part for part in parts if part)


def _module_row(row: Any) -> tuple[str, ...]:
    named = f"{escape(row['name'])} ({count(row['n_named'])} of {count(row['size'])})" if row["name"] else NONE
    return (
        str(int(row["layer"])), str(int(row["module"])), named, count(row["size"]), escape(row["units"] or NONE), decimal(row["score"], 2),
        decimal(row["null_max"], 2), probability(row["q_value"]), decimal(row["consensus"], 2),
    )  # fmt: skip


def _variance(contents: Contents) -> str:
    known, tokens = contents.run_results.table("variance"), contents.wording.nouns.tokens
    if known is None:
        return ""
    if known.empty:
        note = contents.run_results.notes.get("variance")
        return f"### Variance explained\n\n{first_upper(escape(note))}." if note else ""
    largest = known[known["k"] == known.groupby("layer")["k"].transform("max")]
    rows = []
    for layer, part in largest.groupby("layer"):
        by_method = part.drop_duplicates("method").set_index("method")
        rows.append((str(layer), count(part["k"].iloc[0]), *(_explained(by_method, name) for name in _METHODS)))
    wide = [row for row in rows if row[2] != NONE]
    parts = [
        f"Share of the variance of held-out {tokens} that is explained when each is described by k components, with the 95 % interval. For every one the k that "
        "suit it are chosen, of all features, of all independent components (ICA), or of all principal components (*PCA, per token*). *PCA* takes the "
        "first k principal components always. *Random*: of as many random directions as the model has dimensions, which is what choosing alone gives.",
        contents.figure("layers_variance", "Variance explained by k active components"),
        table(("Layer", "k", "Features", "PCA, per token", "PCA", "ICA", "Random"), wide or rows, right=range(7)),
        _inference(contents, "variance"),
    ]
    return "\n\n".join(part for part in ("### Variance explained with k components", *parts) if part)


def _explained(rows: pd.DataFrame, name: str) -> str:
    if name not in rows.index:
        return NONE
    row = rows.loc[name]
    ends = f" ({percent(row['low'])} to {percent(row['high'])})" if is_number(row["low"]) and name == "features" else ""
    return percent(row["explained_heldout"]) + ends


def _novelty(contents: Contents) -> str:
    known, nouns = contents.run_results.table("novelty"), contents.wording.nouns
    if known is None:
        return ""
    title = "### Features without a name"
    note = contents.run_results.notes.get("novelty")
    if known.empty:
        return f"{title}\n\n{first_upper(escape(note))}." if note else f"{title}\n\nEvery active feature has a name."
    fdr = contents.config.validation.fdr
    says = (known["q_value"] < fdr) & (known["auroc_low"] > 0.5)
    chosen = known[known["candidate"].astype(bool)]
    text = (
        f"{count(len(known))} active features have no name. A second seed finds {count(known['seed_match'].sum())} of them again, above chance. "
        f"{count(says.sum())} tell a {nouns.label} apart on held-out {nouns.items} (q < {fdr:g}). "
        + (
            f"{count(len(chosen))} do both: these are candidates, in {_groups(chosen['cluster'].nunique(), nouns.units)}."
            if len(chosen)
            else "Both are needed for a candidate: there is none."
        )
    )
    parts = [title, text]
    if len(chosen):
        best = chosen.sort_values("auroc", ascending=False, kind="stable").head(MOST_CANDIDATES)
        header = (
            "Layer",
            "Feature",
            "Group",
            "Second seed, r",
            "by chance, max",
            first_upper(nouns.label),
            "AUROC",
            "q",
            first_upper(nouns.units),
        )
        rows = [
            (
                str(int(row["layer"])), feature_link(contents.dashboard, row["layer"], row["feature"]), str(int(row["cluster"])),
                decimal(row["seed_correlation"], 2), decimal(row["chance_correlation"], 2), escape(row["predicts"]),
                f"{decimal(row['auroc'], 3)} ({decimal(row['auroc_low'], 3)} to {decimal(row['auroc_high'], 3)})", probability(row["q_value"]),
                escape(", ".join(str(row["units"] or "").split(", ")[:6])),
            )
            for _, row in best.iterrows()
        ]  # fmt: skip
        parts += [table(header, rows, right=(0, 1, 2, 3, 4, 6, 7)), _inference(contents, "novelty")]
    elif note:
        parts.append(f"{first_upper(escape(note))}.")
    return "\n\n".join(part for part in parts if part)


def _groups(n: int, units: str) -> str:
    return f"1 group that shares {units}" if n == 1 else f"{count(n)} groups that share {units}"


def _attribution(contents: Contents) -> str:
    known = contents.run_results.table("attribution")
    if known is None or known.empty:
        return ""
    edges = known[known["edge"].astype(bool) & known["above_null"].astype(bool)]
    checked = known[known["exact"].notna() & ~known["edge"].astype(bool)]
    parts = [
        "### What drives a feature",
        "For the strongest features of a layer, which features of an earlier layer add most to them: gradient times activation, beside random "
        "directions of the same norm. *When removed* is how much the feature falls when its cause is taken out.",
    ]
    if len(checked) > 2:
        order = checked["weight"].corr(checked["exact"], method="spearman")
        parts.append(
            f"On {count(len(checked))} pairs drawn by lot, first-order effect and effect of the removal have a rank correlation of {decimal(order, 2)}."
        )
    if len(edges):
        best = (
            edges.assign(size=edges["share"].abs())
            .sort_values("size", ascending=False, kind="stable")
            .head(MOST_CAUSES)
        )
        rows = [
            (
                f"{int(row['layer_l'])} → {int(row['layer_m'])}", feature_link(contents.dashboard, row["layer_l"], row["feature_i"]),
                feature_link(contents.dashboard, row["layer_m"], row["feature_j"]), percent(row["share"]), decimal(row["weight"], 3),
                decimal(row["exact"], 3), decimal(row["null"], 3), probability(row["q_value"]), count(row["n_items"]),
            )
            for _, row in best.iterrows()
        ]  # fmt: skip
        header = (
            "Layers",
            "Cause",
            "Feature",
            "Share",
            "First order",
            "When removed",
            "Random directions",
            "q",
            first_upper(contents.wording.nouns.items),
        )
        parts += [table(header, rows, right=range(1, len(header))), _inference(contents, "attribution")]
    else:
        parts.append("No cause is above random directions.")
    return "\n\n".join(part for part in parts if part)


def _inference(contents: Contents, name: str) -> str:
    known = contents.run_results.inference.get(name)
    return written(known) if known is not None else ""


def _files(contents: Contents) -> str:
    names = sorted(
        {path.name for name, path in contents.run_results.files.items() if path.parent.name == "cross_layer"}
    )
    if not names:
        return ""
    layers = layers_of(contents.run_results)
    about = f"Layers {', '.join(map(str, layers))}. " if len(layers) > 1 else ""
    return f"{about}All of it: {', '.join(f'`{name}`' for name in names)} in `cross_layer/`."
