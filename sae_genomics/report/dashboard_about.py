"""What the dashboard says of the run: its facts, its layers, and what a reader must know before believing them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sae_genomics.report import groups, nothing_heldout, published
from sae_genomics.report.annotation import known
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution
from sae_genomics.report.document import synthetic
from sae_genomics.report.faithfulness import doubts_of
from sae_genomics.report.files import annotation_files
from sae_genomics.report.markdown import count
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording
from sae_genomics.sae.architectures import architecture_named


def about(contents: Contents, contributions: list[Contribution]) -> dict[str, Any]:
    """All of it, as JSON. See `dashboard.Dashboard.write`."""
    headlines = [each.headline(contents.layers) for each in contributions if each.headline is not None]
    return {
        "title": f"SAE features: {contents.name}",
        "facts": _facts(contents),
        "nouns": {**asdict(contents.wording.nouns), **_words(contents.wording)},
        "fdr": contents.config.validation.fdr,
        "layers": [_layer(each, contributions) for each in contents.layers],
        "headline": next((text for text in headlines if text), ""),
        "notes": _notes(contents),
        "files": [path.name for path in annotation_files(contents.run) if path.exists()],
    }


def _words(wording: Wording) -> dict[str, str]:
    names = ("kind", "type", "types", "weighed", "find_example")
    return {name: getattr(wording, name) for name in names}


def _facts(contents: Contents) -> list[str]:
    plan, sae, run = contents.prepared.plan or {}, contents.config.sae, contents.run
    facts = ["synthetic data"] if synthetic(contents) else []
    facts += [contents.model_name, f"{contents.config.model.hook}, layers {', '.join(map(str, run.layers))}"]
    if contents.prepared.n_items is not None:
        items = contents.wording.nouns.items
        facts.append(f"{count(contents.prepared.n_items)} {items}, {count(plan.get('n_heldout'))} held out")
    if groups.is_so(plan):
        facts.append(
            f"{count(plan.get('n_groups'))} groups ({plan['group_key']}), {count(plan.get('n_heldout_groups'))} held out whole"
        )
    words = ", ".join(filter(None, (sae.architecture, architecture_named(sae.architecture).in_words(sae))))
    facts.append(published.in_short(contents) if published.are_so(contents) else words)
    return facts


def _notes(contents: Contents) -> list[str]:
    plan, wording = contents.prepared.plan or {}, contents.wording
    notes = synthetic(contents)
    n_unfinished = len(contents.unfinished)
    if n_unfinished:
        notes.append(f"{n_unfinished} tasks of the run are not done: report.md beside this page says which and why.")
    if nothing_heldout.is_so(plan):
        notes.append(nothing_heldout.dashboard_note(wording))
    elif not groups.is_so(plan) and any(each.baselines is not None for each in contents.layers):
        notes.append(groups.items_counted(wording).replace("`", ""))
    for each in contents.layers:
        notes += [f"Layer {each.layer}: {text}." for text in doubts_of(each.metrics, wording) if each.metrics]
    return notes


def _layer(summary: LayerSummary, contributions: list[Contribution]) -> dict[str, Any]:
    metrics = summary.metrics
    where = "" if metrics.get("heldout_tokens") else "train_"
    facts: dict[str, Any] = {
        "layer": summary.layer,
        "fvu": known(metrics.get(f"{where}fvu")),
        "l0": known(metrics.get(f"{where}l0")),
        "n_features": summary.n_features,
    }
    for each in contributions:
        if each.layer_facts is not None:
            facts |= each.layer_facts(summary)
    return facts
