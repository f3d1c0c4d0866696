"""report.md, "What was run": data, model, settings, cost and software."""

from __future__ import annotations

from typing import Any

from sae_genomics.progress import duration
from sae_genomics.report import groups, published
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution
from sae_genomics.report.markdown import NONE, code, count, escape, is_number, memory, percent, table
from sae_genomics.report.provenance import Provenance
from sae_genomics.report.wording import first_upper
from sae_genomics.sae.architectures import architecture_named


def was_run(contents: Contents, contributions: list[Contribution]) -> str:
    """The section, with its title."""
    rows = [*_data_rows(contents), *contents.model, *_sae_rows(contents, contributions)]
    parts = ["## What was run", table(("What", "Which"), [(f"**{name}**", value) for name, value in rows])]
    notes = (contents.prepared.plan or {}).get("notes") or []
    if notes:
        parts.append("Notes on the input:\n\n" + "\n".join(f"- {escape(note)}" for note in notes))
    parts.append("Every setting: [config.yaml](config.yaml).")
    parts.append(_costs(contents.provenance))
    return "\n\n".join(part for part in parts if part)


def _data_rows(contents: Contents) -> list[tuple[str, str]]:
    plan, data = contents.prepared.plan or {}, contents.config.data
    rows = [("Data", code(data.path, in_table=True))]
    nouns = contents.wording.nouns
    if contents.prepared.n_items is not None:
        held = count(plan.get("n_heldout")) if plan.get("n_heldout") else "none are"
        rows.append(
            (first_upper(nouns.items), f"{count(contents.prepared.n_items)}, of which {held} held out from training")
        )
    if groups.is_so(plan):
        rows.append(("Groups", groups.fact(plan)))
    if plan.get("n_genes_matched") is not None:
        rows.append(
            (
                "Genes",
                f"{count(plan['n_genes_matched'])} of {count(plan.get('n_genes_input'))} known to the model "
                f"({percent(plan.get('share_genes_matched'))} of genes, {percent(plan.get('share_counts_matched'))} of counts)",
            )
        )
    counts = plan.get("counts")
    if isinstance(counts, dict):
        kinds = {
            "counts": "as stored",
            "recovered": "recovered from log-normalised values",
            "normalised": "**not counts**: normalised values, taken as they are",
        }
        kind = kinds.get(str(counts.get("kind")), escape(counts.get("kind")))
        rows.append(("Counts", f"{code(counts.get('where'), in_table=True)}, {kind}"))
    rows.append(_labels_row(contents))
    if contents.prepared.spans is not None:
        n_spans, n_concepts = contents.prepared.spans
        rows.append((first_upper(nouns.spans), f"{count(n_spans)} annotated, of {count(n_concepts)} concepts"))
    return [row for row in rows if row[1]]


def _labels_row(contents: Contents) -> tuple[str, str]:
    plan, wording, labels = contents.prepared.plan or {}, contents.wording, contents.prepared.labels
    nouns = wording.nouns
    if labels is not None:
        key = plan.get("cell_type_key", plan.get("label_key"))
        column = f" of {code(key, in_table=True)}" if key else ""
        return first_upper(nouns.labels), f"{len(labels)}{column}; the largest is {escape(labels.index[0])}"
    none = f"none annotated: set `{wording.change_labels}` to compare features with {nouns.labels}" if plan else ""
    return first_upper(nouns.labels), none


def _sae_rows(contents: Contents, contributions: list[Contribution]) -> list[tuple[str, str]]:
    sae, config = contents.config.sae, contents.config
    facts = [row for each in contributions if each.facts is not None for row in each.facts(contents)]
    if published.are_so(contents):
        return [*published.rows(contents), *facts, ("Seed", str(config.run.seed))]
    known = [each.metrics for each in contents.layers if each.metrics]
    first: dict[str, Any] = known[0] if known else {}
    d_sae = first.get("d_sae") or sae.d_sae or f"{sae.expansion:g} x d_model"
    shown = count(d_sae) if isinstance(d_sae, int) else str(d_sae)
    trained = f"; {count(first['tokens_trained'])} tokens per layer" if is_number(first.get("tokens_trained")) else ""
    words = architecture_named(sae.architecture).in_words(sae)
    return [
        ("Sparse autoencoders", ", ".join(filter(None, (sae.architecture, f"{shown} features", words)))),
        ("Training", f"{count(sae.steps)} steps of {count(sae.batch_tokens)} tokens{trained}"),
        *facts,
        ("Seed", str(config.run.seed)),
    ]


def _costs(provenance: Provenance) -> str:
    rows = []
    for cost in provenance.costs:
        hosts = [escape(host) for host, _ in cost.hosts.most_common(3)]
        more = len(cost.hosts) - len(hosts)
        rows.append(
            (
                cost.stage,
                count(len(cost.seconds)),
                _duration(sum(cost.seconds)),
                _duration(max(cost.seconds)),
                memory(cost.peak_memory) if cost.peak_memory else NONE,
                ", ".join(hosts) + (f" and {more} more" if more > 0 else ""),
            )
        )
    parts = []
    if rows:
        header = ("Stage", "Tasks done", "Time, all tasks", "Longest task", "Peak memory", "Hosts")
        parts.append(table(header, rows, right=(1, 2, 3, 4)))
    versions = [f"{escape(name)} {escape(' and '.join(met))}" for name, met in provenance.versions.items()]
    software = f"Software: {', '.join(versions)}." if versions else ""
    if provenance.commit:
        state = ", **with uncommitted changes**" if provenance.dirty else ""
        software += f" Checkout when this report was written: commit {code(provenance.commit[:12])}{state}."
    parts.append(software)
    return "\n\n".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    return duration(seconds) if seconds >= 0.5 else "< 1 s"
