"""The tables about cells as they are for every other kind of items."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sae_genomics.artifacts.associate import (
    CELL_TYPE_BASELINES,
    FEATURE_CELL_TYPES,
    FEATURE_GENES,
    FEATURES,
    GENE_TOKENS,
)
from sae_genomics.artifacts.table import Column, Inference, Table

# What the columns of tables about cells are called for every other kind of items.
ITEM_NAMES = {
    "gene_id": "unit_id", "gene_symbol": "unit_name", "top_gene": "top_unit", "cell_type": "label", "n_cells": "n_items",
    "best_cell_type": "best_label", "best_cell_type_auroc": "best_label_auroc",
    "best_cell_type_q_value": "best_label_q_value",
}  # fmt: skip
_ITEM_TERMS = {
    "gene tokens": "tokens that count", "gene token": "token that counts", "genes": "units", "gene_symbol": "unit_name", "gene": "unit",
    "cell types": "labels", "cell type": "label", "training-cell": "training-item", "cells": "items", "cell": "item", "types": "labels",
    "the type": "the label",
}  # fmt: skip


def _of_items(text: str) -> str:
    """The same sentence about items of any kind."""
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in _ITEM_TERMS))
    return pattern.sub(lambda match: _ITEM_TERMS[match.group()], text)


def _item_table(table: Table, file: str) -> Table:
    """A table about cells and genes as it is for every other kind of items."""
    columns = tuple(
        Column(ITEM_NAMES.get(column.name, column.name), column.type, _of_items(column.meaning))
        for column in table.columns
    )
    inference = table.inference
    if inference is not None:
        inference = Inference(
            _of_items(inference.unit), _of_items(inference.n).replace("n_cells", "n_items"), _of_items(inference.null)
        )
    return Table(file, _of_items(table.meaning), columns, inference)


ITEM_FEATURES = _item_table(FEATURES, FEATURES.file)
FEATURE_UNITS = _item_table(FEATURE_GENES, "feature_units.parquet")
FEATURE_LABELS = _item_table(FEATURE_CELL_TYPES, "feature_labels.parquet")
LABEL_BASELINES = _item_table(CELL_TYPE_BASELINES, "label_baselines.parquet")


@dataclass(frozen=True)
class LayerTables:
    """The tables that every data kind has, under the kind's names.

    features; feature_units: top units of each feature; unit_tokens: how often each unit was met, None where no stage asks for it;
    feature_labels; label_baselines.
    names: what the columns are called that the code calls by the names of cells.
    """

    features: Table
    feature_units: Table
    unit_tokens: Table | None
    feature_labels: Table
    label_baselines: Table
    names: dict[str, str]


CELL_LAYER_TABLES = LayerTables(FEATURES, FEATURE_GENES, GENE_TOKENS, FEATURE_CELL_TYPES, CELL_TYPE_BASELINES, {})
ITEM_LAYER_TABLES = LayerTables(ITEM_FEATURES, FEATURE_UNITS, None, FEATURE_LABELS, LABEL_BASELINES, ITEM_NAMES)
