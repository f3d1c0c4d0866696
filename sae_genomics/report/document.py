"""report.md: the opening, and the sections in the order they are read."""

from __future__ import annotations

from datetime import datetime, timezone

from sae_genomics.report import groups, nothing_heldout, published, section_missing, section_next, section_run
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, phrases, sentences
from sae_genomics.report.markdown import code, count, either, escape, listing
from sae_genomics.sae.architectures import architecture_named


def compose(contents: Contents, contributions: list[Contribution]) -> str:
    """The whole document. contributions: those that apply, by order."""
    sections = [
        _opening(contents, contributions),
        section_run.was_run(contents, contributions),
        section_missing.missing(contents),
        *(each.section(contents) for each in contributions if each.section is not None),
        section_next.next_steps(contents, contributions),
        section_next.terms(contents),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def synthetic(contents: Contents) -> list[str]:
    """The notes on the input that say that it is not real."""
    notes = (contents.prepared.plan or {}).get("notes") or []
    return [str(note) for note in notes if "synthetic" in str(note).lower()]


def _opening(contents: Contents, contributions: list[Contribution]) -> str:
    plan, sae, wording = contents.prepared.plan or {}, contents.config.sae, contents.wording
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    model, n_items = f"the model {code(contents.model_name)}", contents.prepared.n_items
    items = f"{count(n_items)} {wording.nouns.items}" if n_items is not None else f"The {wording.nouns.items}"
    with_results = [each.layer for each in contents.layers if each.metrics or each.n_features]
    sizes = sorted({each.n_features for each in contents.layers if each.n_features})
    size = f" with {listing([f'{each:,}' for each in sizes])} features" if sizes else ""
    theirs = published.are_so(contents)
    active = f" ({sae.k} here)" if architecture_named(sae.architecture).uses_k and not theirs else ""
    compared = listing(phrases(contributions, "compared_with", wording))
    intro = (
        f"{items} went through {model}. For {_layers(len(with_results))} {'a published' if theirs else 'a'} sparse autoencoder{size} {'reads' if theirs else 'was trained on'} what "
        f"the layer makes of every {wording.every_token}: it rewrites these dense activations as a few active *features* at a time"
        f"{active}. Each feature was then compared with {compared}, always "
        "beside what chance and simpler means give."
    )
    if not with_results:
        intro = f"Nothing is known yet about any layer of {model}: no trained autoencoder that is up to date was found."
    made_up = synthetic(contents)
    points = [f"**Synthetic data.** {' '.join(escape(note) for note in made_up)}"] if made_up else []
    told = sentences(contributions, "findings", contents)
    points += told
    if nothing_heldout.is_so(plan) and with_results:
        points.append(nothing_heldout.certainty(wording))
    if told or len(points) > len(made_up):
        points.append(_certainty(contents, contributions))
    if contents.unfinished or contents.problems:
        points.append("**This report is not complete**: see [What is missing](#what-is-missing).")
    link = f"All features, to sort and search: [dashboard.html]({contents.dashboard})." if contents.dashboard else ""
    lines = [
        f"# Run {escape(contents.name)}: what {model} has learned",
        f"*Written {now}.* {link}".strip(),
        intro,
    ]
    return "\n\n".join(lines) + "\n\n" + "\n".join(f"- {point}" for point in points if point)


def _certainty(contents: Contents, contributions: list[Contribution]) -> str:
    """How sure one can be of all this, in sentences that follow from the numbers."""
    plan, items = contents.prepared.plan or {}, contents.wording.nouns.items
    parts = []
    if plan.get("n_heldout"):
        about = (
            f"Every statement about {items}"
            if contents.wording.kind == "cells"
            else f"What is said of faithfulness and {contents.wording.nouns.labels}"
        )
        parts.append(
            f"{about} comes from {count(plan['n_heldout'])} held-out {items}{groups.heldout(plan)}"
            f"{'' if published.are_so(contents) else ', which no autoencoder was trained on'}; which feature to look at was chosen on "
            f"the other {items}."
        )
        if published.are_so(contents):
            parts.append(published.heldout(contents.wording))
    parts += sentences(contributions, "caveats", contents)
    matched = either(phrases(contributions, "matched", contents.wording))
    parts.append(f"A match with {matched} is an association; it does not show that the model uses the feature for it.")
    return "**How sure.** " + " ".join(parts)


def _layers(n: int) -> str:
    return "its one layer here" if n == 1 else f"each of {n} layers"
