"""The line under every table with a statistic: unit of inference, n, null, as the tables' files name them."""

from __future__ import annotations

from collections.abc import Sequence

from sae_genomics.artifacts import Inference, Table
from sae_genomics.report.markdown import escape
from sae_genomics.report.summary import LayerSummary

TRAINING_CELLS = Inference(
    "none, these numbers describe and nothing is tested",
    "the training cells of each type",
    "none (AUROC 0.5 is a coin)",
)


def written(inference: Inference) -> str:
    """The line as Markdown."""
    return f"*{escape(inference.line())}*"


def line(layers: Sequence[LayerSummary], table: Table, about: str = "") -> str:
    """The line of a table, the first layer's that has it; empty where none has. about: words before it."""
    known = next((each.inference[table.file] for each in layers if table.file in each.inference), None)
    if known is None:
        return ""
    return written(known) if not about else f"{about}: {written(known)}"
