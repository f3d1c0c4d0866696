"""report.md: the opening, and the sections in the order they are read."""

from __future__ import annotations

from datetime import datetime, timezone

from sae_genomics.report import (
    annotation_words,
    findings,
    nothing_heldout,
    section_annotation,
    section_missing,
    section_next,
    section_results,
    section_run,
)
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import count, escape, listing


def compose(contents: Contents) -> str:
    """The whole document."""
    sections = [
        _opening(contents),
        section_run.was_run(contents),
        section_missing.missing(contents),
        section_results.reconstruction(contents),
        section_annotation.annotation(contents),
        section_results.cell_types(contents),
        section_results.best_features(contents),
        section_next.next_steps(contents),
        section_next.words(contents),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _opening(contents: Contents) -> str:
    plan, sae = contents.prepared.plan or {}, contents.config.sae
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    model = escape(contents.model_name)
    cells = f"{count(plan['n_cells'])} cells" if plan.get("n_cells") else "The cells"
    with_results = [each.layer for each in contents.layers if each.metrics or each.n_features]
    sizes = sorted({each.n_features for each in contents.layers if each.n_features})
    size = f" with {listing([f'{each:,}' for each in sizes])} features" if sizes else ""
    intro = (
        f"{cells} went through the model {model}. For {_layers(len(with_results))} a sparse autoencoder{size} was trained on what "
        f"the layer makes of every gene of every cell: it rewrites these dense activations as a few active *features* at a time "
        f"({sae.k} here). Each feature was then compared with genes, annotated cell types and known gene sets, always "
        "beside what chance and simpler means give."
    )
    if not with_results:
        intro = f"Nothing is known yet about any layer of the model {model}: no trained autoencoder that is up to date was found."
    unheld = nothing_heldout.is_so(plan)
    faithfulness = nothing_heldout.faithfulness if unheld else findings.reconstruction
    points = [
        annotation_words.opening(contents.layers, contents.config.validation.fdr),  # first: what is above chance
        faithfulness(contents.layers, sae.k),
        findings.doubtful(contents.layers),
        findings.cell_types(contents.wide, contents.config.validation.fdr),
    ]
    if unheld and with_results:
        points.append(nothing_heldout.CERTAINTY)
    if any(points):
        points.append(findings.certainty(contents.layers, contents.wide, plan))
    if contents.unfinished or contents.problems:
        points.append("**This report is not complete**: see [What is missing](#what-is-missing).")
    link = f"All features, to sort and search: [dashboard.html]({contents.dashboard})." if contents.dashboard else ""
    lines = [
        f"# Run {escape(contents.name)}: what the model {model} has learned",
        f"*Written {now}.* {link}".strip(),
        intro,
    ]
    return "\n\n".join(lines) + "\n\n" + "\n".join(f"- {point}" for point in points if point)


def _layers(n: int) -> str:
    return "its one layer here" if n == 1 else f"each of {n} layers"
