"""README.md of shared SAEs: what the hub and SAELens' users read first. YAML front matter, then facts, numbers and how to load them."""

from __future__ import annotations

import yaml

from sae_genomics.report.markdown import escape, table
from sae_genomics.share.facts import Shared

TAGS = ["sparse-autoencoder", "saelens", "interpretability", "sae-genomics"]


def card(shared: Shared, repository: str | None) -> str:
    """The text. repository: ORG/NAME on the hub; None for a folder."""
    run, layers = shared.run, ", ".join(str(each.number) for each in shared.layers)
    parts = [
        f"---\n{front_matter(shared)}---",
        f"# Sparse autoencoders of {escape(run.model_info.name)}, {escape(run.config.model.hook)}, layers {layers}",
        f"Made by the run `{run.name}` of sae-genomics. One folder per layer, in SAELens' format.",
        "## What they are\n\n"
        + table(("What", "Which"), [(escape(name), escape(text)) for name, text in shared.facts]),
    ]
    if shared.notes:
        parts.append("Notes on the data:\n\n" + "\n".join(f"- {escape(note)}" for note in shared.notes))
    parts.append("## How to load them\n\n" + _loading(shared, repository))
    parts.append(
        "## What was measured\n\nEach number stands beside what chance, or something simpler, gives. A match with a gene set or a label is an "
        "association; it does not show that the model uses the feature for it."
    )
    for layer in shared.layers:
        rows = [
            (escape(each.name), escape(each.value), escape(each.chance), escape(each.meaning)) for each in layer.numbers
        ]
        parts.append(
            f"### Layer {layer.number}\n\n" + table(("What", "Here", "By chance, or simpler", "Meaning"), rows)
        )
    parts.append("## Files\n\n" + _files(shared))
    return "\n\n".join(parts) + "\n"


def front_matter(shared: Shared) -> str:
    """YAML that the hub reads. A licence is for whoever shares to choose: it cannot be known from a run."""
    values: dict[str, object] = {"library_name": "saelens", "tags": [*TAGS, shared.run.config.data.kind]}
    if shared.base_model:
        values["base_model"] = shared.base_model
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _loading(shared: Shared, repository: str | None) -> str:
    first = shared.layers[0].name
    load = (
        f'sae = SAE.from_pretrained(release="{repository}", sae_id="{first}")'
        if repository
        else f'sae = SAE.load_from_disk("{first}")  # in this folder'
    )
    source = repository or "PATH/OF/THIS/FOLDER"
    text = f"```python\nfrom sae_lens import SAE\n\n{load}\nfeatures = sae.encode(activations)  # float32 [tokens, {shared.run.model_info.d_model}]\n```"
    if shared.run.config.sae.centre == "unit":
        unit = shared.run.kind.nouns.unit
        text += (
            f"\n\nThese SAEs read activations minus the mean of each token's {unit}: `unit_means.safetensors` beside the weights holds the "
            "means, and `sae_genomics.sae.load.centre` subtracts them."
        )
    return f"{text}\n\nIn a run of sae-genomics on the same model and hook, in place of training:\n\n```yaml\nsae:\n  from: {source}\n```"


def _files(shared: Shared) -> str:
    lines = [
        "`layer_LL/cfg.json`, `layer_LL/sae_weights.safetensors`: the SAE; `layer_LL/sparsity.safetensors`: log10 of firing rates",
        "`layer_LL/metrics.json`: everything that was measured of it",
        "`features.parquet`, `features.tsv`: one row per layer and feature: name, firing rate, top units, best label",
        "`index.html`: the same as a page; it needs no network",
        "`sae_genomics.json`: the content hash of each file",
    ]
    if "annotations.parquet" in shared.extra.get("tables", ()):
        lines.insert(3, "`annotations.parquet`, `annotations.tsv`: every gene set of every feature, with its test")
    return "\n".join(f"- {line}" for line in lines)
