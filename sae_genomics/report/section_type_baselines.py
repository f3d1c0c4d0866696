"""report.md, labels: the best unit of each baseline beside the best feature and the best single gene or amino acid."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_genomics.report.markdown import NONE, decimal, details, escape, is_number, table
from sae_genomics.report.summary import BASELINE_KINDS
from sae_genomics.report.wording import CELL_WORDING, Wording, first_upper

_HEADERS = {
    "neuron": "Raw neuron",
    "pca": "Principal component",
    "ica": "Independent component",
    "untrained": "Untrained model's feature",
}


def beside_baselines(wide: pd.DataFrame, basis: str, wording: Wording = CELL_WORDING) -> str:
    """One row per label: held-out AUROC of feature, unit and each baseline that was run. Empty without any.

    wide: from `summary.side_by_side`. basis: the line that names unit of inference, n and null.
    """
    kinds = [kind for kind in BASELINE_KINDS if wide[(kind, "auroc")].notna().any()]
    if not kinds:
        return ""
    rows = [
        (
            escape(name),
            decimal(row["feature"]["auroc"], 3) if is_number(row["feature"]["auroc"]) else NONE,
            _named(row["unit"], of_layer=False),
            *(_named(row[kind]) for kind in kinds),
        )
        for name, row in wide.iterrows()
    ]
    header = (
        first_upper(wording.nouns.label),
        "Feature",
        first_upper(wording.nouns.unit),
        *(_HEADERS[kind] for kind in kinds),
    )
    text = (
        f"Held-out AUROC of the best unit of each kind, over all layers; each was chosen on training {wording.nouns.items}. "
        "Neurons and components count as two units, one per sign (7- is the negative sign of number 7)."
    )
    if "untrained" in kinds:
        text += f" The untrained model has read `validation.untrained_cells` {wording.nouns.items} alone: its AUROC is over the held-out ones among them."
    return details("The best unit of each baseline", f"{text}\n\n{table(header, rows, right=(1,))}\n\n{basis}")


def _named(row: Any, of_layer: bool = True) -> str:
    """A unit's name, AUROC and layer; a gene's expression, an amino acid's share, is the same in all layers."""
    if not is_number(row["auroc"]):
        return NONE
    layer = f", layer {int(row['layer'])}" if of_layer and is_number(row.get("layer")) else ""
    return f"{escape(row['name'])} {decimal(row['auroc'], 3)}{layer}"
