"""The line under every table with a statistic: unit of inference, n, null, as the tables' files name them."""

from __future__ import annotations

from collections.abc import Sequence

from sae_genomics.artifacts import Inference
from sae_genomics.data.kind import Nouns
from sae_genomics.report.markdown import escape
from sae_genomics.report.summary import LayerSummary


def reconstruction(nouns: Nouns, heldout: bool = True) -> Inference:
    """Of the numbers on reconstruction in metrics.json."""
    return Inference(
        f"none, these numbers describe and nothing is tested (for the interval of loss recovered: one held-out {nouns.item}, or one group)",
        f"{'held-out' if heldout else 'training'} {nouns.tokens}, which are no replicates of each other",
        "none (with nothing but the mean activation FVU is 1 and loss recovered 0)",
    )


def training_items(nouns: Nouns, type_: str) -> Inference:
    """Of numbers on labels where nothing is held out."""
    return Inference(
        "none, these numbers describe and nothing is tested",
        f"the training {nouns.items} of each {type_}",
        "none (AUROC 0.5 is a coin)",
    )


def written(inference: Inference) -> str:
    """The line as Markdown."""
    return f"*{escape(inference.line())}*"


def line(layers: Sequence[LayerSummary], reading: str, about: str = "") -> str:
    """The line of what is read under a name, the first layer's that has it; empty where none has. about: text before it."""
    known = next((each.inference[reading] for each in layers if reading in each.inference), None)
    if known is None:
        return ""
    return written(known) if not about else f"{about}: {written(known)}"
