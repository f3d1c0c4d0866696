"""report.md, features that tell labels (cell types, families) apart."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.report import groups, inference, nothing_heldout
from sae_genomics.report.contents import Contents
from sae_genomics.report.findings import FEW_ITEMS
from sae_genomics.report.markdown import (
    NONE,
    count,
    decimal,
    details,
    escape,
    feature_link,
    is_number,
    probability,
    table,
)
from sae_genomics.report.section_type_baselines import beside_baselines
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording, a, first_upper


def figure_name(wording: Wording) -> str:
    """Of the figure of this section: `cell_types`, `families`."""
    return wording.nouns.labels.replace(" ", "_")


def labels(contents: Contents) -> str:
    """The section, with its title."""
    wording, nouns = contents.wording, contents.wording.nouns
    parts = [f"## Features that tell {nouns.labels} apart"]
    if contents.wide is None:
        if not any(each.n_features for each in contents.layers):
            parts.append("Not tested yet.")
        else:
            parts.append(
                f"No {nouns.label} could be tested: the {nouns.items} carry no annotation, or their {wording.types} are too small. "
                f"{wording.name_labels}"
            )
        return "\n\n".join(parts)
    if nothing_heldout.is_so(contents.prepared.plan or {}):
        parts += nothing_heldout.labels(contents)
        parts.append(contents.figure("embedding", f"These features on the embedding of the {nouns.items}"))
        return "\n\n".join(part for part in parts if part)
    if contents.wide[("feature", "auroc")].isna().all():
        return f"{parts[0]}\n\n{_none_tested(contents)}"
    parts.append(
        f"For each {wording.type} the one feature, the one {nouns.unit} and the one raw neuron that separate it best from all other "
        f"{nouns.items}, each chosen on training {nouns.items} (over all layers) and measured on held-out {nouns.items}. *AUROC* is the "
        f"chance that {a(nouns.item)} of the {wording.type} scores above {a(nouns.item)} of another: 0.5 is a coin, 1 is perfect. In brackets "
        f"the 95 % interval. *q* is over every feature x {nouns.label} test of the layer. The {wording.types} stand by the lower end of "
        "the feature's interval."
    )
    parts.append(groups.how_measured(contents.prepared.plan or {}, wording))
    parts.append(_types_table(contents.wide, contents.dashboard, wording))
    basis = inference.line(contents.layers, "label_baselines")
    parts += [basis, beside_baselines(contents.wide, basis, wording)]
    parts.append(_untested(contents))
    parts.append(
        contents.figure(
            figure_name(wording),
            f"Held-out AUROC of the best feature, {nouns.unit} and raw neuron of each {nouns.label}",
        )
    )
    parts.append(
        contents.figure(
            "embedding", f"The best features of the largest {nouns.labels} on the embedding of the {nouns.items}"
        )
    )
    for each in contents.layers:
        if each.baselines is not None:
            body = _layer_types(each, contents.dashboard, wording)
            if body:
                body += f"\n\n{inference.line([each], 'label_baselines')}"
                parts.append(details(f"Layer {each.layer}, every {nouns.label}", body))
    return "\n\n".join(part for part in parts if part)


def _none_tested(contents: Contents) -> str:
    plan, wording = contents.prepared.plan or {}, contents.wording
    if groups.are_labels(plan):
        return groups.same_as_labels(plan, wording)
    none = f"No {wording.nouns.label} could be tested on held-out {wording.nouns.items}: too few of them are there."
    return "\n\n".join(filter(None, [none, _untested(contents)]))


def _untested(contents: Contents) -> str:
    """Which labels have no q-value because there are too few groups; said once, because all layers have the same items."""
    known = [each.baselines for each in contents.layers if each.baselines is not None]
    return groups.reasons(known[0], contents.wording) if known and groups.is_so(contents.prepared.plan or {}) else ""


def _types_table(wide: pd.DataFrame, dashboard: str, wording: Wording) -> str:
    rows = []
    grouped = bool(wide[("feature", "n_groups")].notna().any())
    for name, row in wide.iterrows():
        feature, unit, neuron = row["feature"], row["unit"], row["neuron"]
        where = (
            f"{feature_link(dashboard, feature['layer'], feature['unit'])}, layer {int(feature['layer'])}"
            if is_number(feature.get("unit"))
            else NONE
        )
        rows.append(
            (
                escape(name),
                _items(feature["n_items"] if is_number(feature["n_items"]) else unit["n_items"]),
                *([count(feature["n_groups"])] if grouped else []),
                where,
                _auroc(feature, wording),
                probability(feature["q_value"]),
                f"{escape(unit['name'])} {_auroc(unit, wording)}" if is_number(unit["auroc"]) else NONE,
                f"{_auroc(neuron, wording)}, layer {int(neuron['layer'])}" if is_number(neuron["auroc"]) else NONE,
            )
        )
    header = (
        first_upper(wording.nouns.label),
        f"Held-out {wording.nouns.items}",
        *(["Groups"] if grouped else []),
        "Best feature",
        "AUROC",
        "q",
        f"Best {wording.single_unit}",
        "Best raw neuron",
    )
    return table(header, rows, right=(1, 2, 5) if grouped else (1, 4))


def _items(n: Any) -> str:
    return f"{count(n)} (few)" if is_number(n) and n < FEW_ITEMS else count(n)


def _auroc(row: Any, wording: Wording) -> str:
    if not is_number(row["auroc"]):
        return "too few held-out groups" if is_number(row["n_groups"]) else f"too few held-out {wording.nouns.items}"
    ends = f" ({decimal(row['low'])}–{decimal(row['high'])})" if is_number(row["low"]) else ""
    return f"{decimal(row['auroc'], 3)}{ends}"


def _layer_types(summary: LayerSummary, dashboard: str, wording: Wording) -> str:
    assert summary.baselines is not None
    rows = []
    for name, group in summary.baselines.groupby("label", sort=False):
        kinds = {row["kind"]: row for _, row in group.iterrows()}
        feature = kinds.get("feature")
        if feature is None:
            continue
        beside = [
            (f"{escape(kinds[kind]['name'])} " if kind == "unit" else "") + decimal(kinds[kind]["auroc"], 3)
            if kind in kinds
            else NONE
            for kind in ("unit", "neuron")
        ]
        rows.append(
            (
                escape(name),
                _items(feature["n_items"]),
                feature_link(dashboard, summary.layer, feature["unit"]),
                _auroc(feature, wording),
                probability(feature["q_value"]),
                *beside,
            )
        )
    header = (
        first_upper(wording.nouns.label), f"Held-out {wording.nouns.items}", "Best feature", "AUROC", "q", f"Best {wording.single_unit}",
        "Best raw neuron",
    )  # fmt: skip
    return table(header, rows, right=(1, 4)) if rows else ""
