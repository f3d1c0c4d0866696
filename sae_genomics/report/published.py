"""What the report says where the SAEs are published ones (`sae.from`): whose they are, and what is left out because of it."""

from __future__ import annotations

from typing import Any

from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import code, count, escape, listing
from sae_genomics.report.wording import Wording
from sae_genomics.sae.settings import STABILITY_LEFT_OUT


def are_so(contents: Contents) -> bool:
    """Whether the run's SAEs are published ones."""
    return contents.config.sae.from_ is not None


def origins(contents: Contents) -> list[tuple[int, dict[str, Any]]]:
    """(layer, where its SAE is from) of the layers that have one."""
    return [(each.layer, each.metrics["from"]) for each in contents.layers if each.metrics and each.metrics.get("from")]


def rows(contents: Contents) -> list[tuple[str, str]]:
    """For "What was run": whose SAEs these are, by layer, and what was said of them when they were taken over."""
    found = [
        (
            "Sparse autoencoders",
            f"published, from {code(contents.config.sae.from_, in_table=True)}; none was trained here",
        )
    ]
    sizes = {each.layer: each.metrics.get("d_sae") for each in contents.layers if each.metrics}
    for layer, origin in origins(contents):
        commit = f", commit {code(origin['commit'][:12], in_table=True)}" if origin.get("commit") else ""
        scaled = f", activations scaled by {origin['scale']:.4g}" if origin.get("scale", 1) != 1 else ""
        text = (
            f"{code(origin['name'], in_table=True)}{commit}: {escape(origin['architecture'])}, {count(sizes.get(layer))} features{scaled}; "
            f"weights {code(origin['weights'], in_table=True)}"
        )
        notes = "".join(f"; {escape(note)}" for note in origin.get("notes") or [])
        found.append((f"Autoencoder of layer {layer}", text + notes))
    return found


def heldout(wording: Wording) -> str:
    """What held-out items are worth where the SAEs came from elsewhere."""
    items = wording.nouns.items
    return (
        f"The autoencoders are published ones: which {items} they were trained on is their publisher's to say, and some of the held-out "
        f"{items} may be among them."
    )


def stability(contents: Contents) -> str:
    """Why there is no share of features that come back; empty where nobody asked for it, or there is one."""
    left_out = are_so(contents) and contents.config.sae.stability
    return f"{STABILITY_LEFT_OUT[0].upper()}{STABILITY_LEFT_OUT[1:]}." if left_out else ""


def in_short(contents: Contents) -> str:
    """For the dashboard's line of facts."""
    kinds = sorted({str(origin["architecture"]) for _, origin in origins(contents)})
    return f"published SAEs ({listing(kinds) or 'not here yet'}) from {contents.config.sae.from_}"
