"""report.md, how faithful the features are: reconstruction, loss recovered, stability, and what to read with care."""

from __future__ import annotations

from sae_genomics.report import faithfulness, inference, nothing_heldout, published
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import code, count, decimal, details, escape, percent, table
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording
from sae_genomics.sae.compare import STABLE_COSINE


def reconstruction(contents: Contents) -> str:
    known = [each for each in contents.layers if each.metrics]
    parts = ["## How faithful the features are"]
    if not known:
        parts.append("No trained autoencoder yet.")
        return "\n\n".join(parts)
    heldout, wording = not nothing_heldout.is_so(contents.prepared.plan or {}), contents.wording
    parts += _reconstruction(known, wording) if heldout else nothing_heldout.reconstruction(known, wording)
    parts.append(faithfulness.identity_table(known, heldout, wording))
    if parts[-1]:
        parts.append(inference.written(inference.reconstruction(wording.nouns, heldout)))
    parts.append(_doubts(known, wording))
    parts.append(published.stability(contents))
    parts.append(_weights(known))
    parts.append(contents.figure("reconstruction", "FVU, L0 and dead share by layer"))
    parts.append(contents.figure("firing_rates", "Histogram of firing rates by layer"))
    return "\n\n".join(part for part in parts if part)


def _doubts(known: list[LayerSummary], wording: Wording) -> str:
    """What a reader must know before believing a layer's features."""
    lines = [
        f"- **Layer {each.layer}.** {escape(text)}."
        for each in known
        for text in faithfulness.doubts_of(each.metrics, wording)
    ]
    return "Read these layers with care:\n\n" + "\n".join(lines) if lines else ""


def _weights(known: list[LayerSummary]) -> str:
    """Which weights each layer's numbers, features and tables describe."""
    rows = [(str(each.layer), code(each.metrics["weights"])) for each in known if each.metrics.get("weights")]
    if not rows:
        return ""
    said = "The content hash of `sae_weights.safetensors`. `cfg.json` beside it, `features.h5ad` and the layer's tables hold the same one."
    header = ("Layer", "Weights (BLAKE2b)")
    return details("Which weights this describes", f"{said}\n\n{table(header, rows, right=(0,))}")


def _reconstruction(known: list[LayerSummary], wording: Wording) -> list[str]:
    """Text and table, of held-out items."""
    nouns = wording.nouns
    parts = [
        f"Measured on held-out {nouns.items}. *FVU* is the share of the activations' variance that the features miss (0 is perfect; "
        f"*explained variance* is the rest), *L0* the mean number of active features per {nouns.token}, *dead* the share of features "
        "that never fired there, *decoder cosine* the mean absolute cosine between features' directions (0: all different). "
        "*Loss recovered*: with the reconstruction in place of the layer's activations, how much of what the layer is worth to the "
        f"model's own prediction of hidden {wording.hidden} remains (1: all, 0: no more than the layer's mean activation would leave)."
        + faithfulness.loss_words(known, wording)
    ]
    stable = any(each.metrics.get("stability") is not None for each in known)
    if stable:
        parts[-1] += (
            " *Stable*: a second autoencoder was trained with another seed; this share of the features has a partner in it (cosine of "
            f"their directions at least {STABLE_COSINE:g}). A feature without one is one way among several to take the activations apart."
        )
    rows = [
        (
            str(each.layer),
            decimal(each.metrics.get("fvu"), 3),
            decimal(each.metrics.get("explained_variance"), 3),
            faithfulness.loss_recovered(each.metrics),
            *([percent(each.metrics.get("stability"))] if stable else []),
            decimal(each.metrics.get("l0"), 1),
            percent(each.metrics.get("dead_share")),
            decimal(each.metrics.get("mean_abs_decoder_cosine"), 3),
            count(each.metrics.get("d_sae")),
            count(each.metrics.get("heldout_tokens")),
        )
        for each in known
    ]
    header = (
        "Layer",
        "FVU",
        "Explained variance",
        "Loss recovered",
        *(["Stable"] if stable else []),
        "L0",
        "Dead",
        "Decoder cosine",
        "Features",
        "Held-out tokens",
    )
    return [*parts, table(header, rows, right=range(len(header))), inference.written(inference.reconstruction(nouns))]
