"""report.md, "What to do next": commands with this run's own paths; and the terms used."""

from __future__ import annotations

from sae_genomics.associations.cell_matrix import feature_names
from sae_genomics.report import published
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, phrases
from sae_genomics.report.markdown import code, count, either, table
from sae_genomics.report.wording import a, first_upper
from sae_genomics.sae.architectures import architecture_named


def next_steps(contents: Contents, contributions: list[Contribution]) -> str:
    """The section, with its title."""
    wording = contents.wording
    parts = ["## What to do next"]
    if contents.dashboard:
        parts.append(
            f"Open [dashboard.html]({contents.dashboard}) in a browser (it needs no network): every feature of every layer, to "
            f"sort by firing rate, specificity or q-value, and to find by {either(phrases(contributions, 'found_by', wording))}."
        )
    if contents.h5ad is not None and contents.example is not None:
        intro = f"Go on in scanpy, one column per feature, here {contents.example.wording}:"
        parts.append(f"{intro}\n\n{_python(_scanpy_lines(contents))}")
    if contents.sae is not None:
        parts.append("Use the autoencoder itself through SAELens:\n\n" + _python(_saelens_lines(contents)))
    typed = ""
    if contents.overrides:
        typed_settings = ", ".join(code(each) for each in contents.overrides)
        typed = f" What `--set` says comes before that file: {typed_settings}."
    sae = contents.config.sae
    settings = architecture_named(sae.architecture).shown_settings(sae)
    active = ", ".join(f"`sae.{name}` (now {value})" for name, value in settings.items()) or "`sae.architecture`"
    saes = [
        ("have more or fewer features active at a time", active),
        ("have more features", "`sae.expansion` or `sae.d_sae`"),
        ("train longer", f"`sae.steps` (now {count(sae.steps)})"),
    ]
    if published.are_so(contents):
        saes = [
            ("use other SAEs", f"`sae.from` (now {code(sae.from_, in_table=True)}); `sae.from: null` trains them here")
        ]
    parts.append(
        f"Change something: edit {code(contents.config_file)} and run the pipeline again. Only what the change touches "
        f"is made anew.{typed}\n\n"
        + table(
            ("To", "set in the config"),
            [
                *saes,
                ("look at other layers or hooks of the model", "`model.layers`, `model.hook`"),
                *(row for each in contributions if each.changes is not None for row in each.changes(wording)),
            ],
        )
        + f"\n\n```bash\n{contents.pipeline}\n```"
    )
    return "\n\n".join(parts)


def _python(lines: list[str]) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"


def _scanpy_lines(contents: Contents) -> list[str]:
    assert contents.example is not None
    feature = str(feature_names(contents.example.feature + 1)[-1])
    lines = ["import scanpy as sc", "", f"features = sc.read_h5ad({str(contents.h5ad)!r})"]
    if contents.embedding:
        lines.append(f"sc.pl.embedding(features, basis={contents.embedding!r}, color={feature!r})")
    else:
        lines += ["sc.pp.pca(features)", "sc.pp.neighbors(features)", "sc.tl.umap(features)"]
        lines.append(f"sc.pl.umap(features, color={feature!r})")
    key = (contents.prepared.plan or {}).get("cell_type_key")
    if key and contents.prepared.labels is not None:
        lines.append(f"sc.pl.violin(features, {feature!r}, groupby={str(key)!r}, rotation=90)")
    return lines


def _saelens_lines(contents: Contents) -> list[str]:
    lines = ["from sae_lens import SAE", "", f"sae = SAE.load_from_disk({str(contents.sae)!r})"]
    if contents.shard is not None:
        centred, unit = contents.config.sae.centre == "unit", contents.wording.nouns.unit
        readers = "read_activations, read_units" if centred else "read_activations"
        ours = ["from sae_genomics.sae.load import centre"] if centred else []
        lines = ["import torch", f"from sae_genomics.activations import {readers}", *ours, *lines]
        lines.append(f"rows = read_activations({str(contents.shard)!r}, slice(0, 1000))  # [tokens, d_model]")
        if centred:
            tokens = contents.shard.parent.parent / "tokens" / contents.shard.name
            lines.append(f"units = read_units({str(tokens)!r}, slice(0, 1000))  # the {unit} of each token")
            lines.append(f"rows = centre(rows, units, {str(contents.sae)!r})  # minus the mean of each token's {unit}")
        lines.append("active = sae.encode(torch.from_numpy(rows))  # [tokens, features]")
    return lines


def terms(contents: Contents) -> str:
    """The terms that the report uses."""
    wording = contents.wording
    nouns = wording.nouns
    lines = [
        f"*Feature* (latent): one unit of a sparse autoencoder, active in few {nouns.tokens}.",
        f"*{first_upper(nouns.token)}*: {wording.token_is}.",
        f"*Specificity*: log2 of a feature's activation on {a(nouns.unit)} over what it would be if it ignored {nouns.units}, in bits.",
        "*q-value*: the share of false findings to expect among all tests that are at least this clear (Benjamini-Hochberg).",
        f"*Held-out {nouns.items}*: {nouns.items} that no {'choice of a feature was made' if published.are_so(contents) else 'autoencoder was trained'} on.",
    ]
    return "## Terms\n\n" + "\n".join(f"- {line}" for line in lines)
