"""feature_gene_associations.json and feature_cell_associations.json: the top entries, as earlier scripts had them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.atomic import write_text
from sae_genomics.report.cells import CellSample, TopCells
from sae_genomics.report.collect import LayerResults

GENES_FILE, CELLS_FILE = "feature_gene_associations.json", "feature_cell_associations.json"
CELLS_LISTED = 10


def write_genes(path: Path, results: LayerResults, n_genes: int) -> None:
    """{"layer", "about", "features": {feature: [{gene_id, gene_symbol, score, mean_activation, ...}]}}, by score."""
    assert results.genes is not None
    columns = ["gene_id", "gene_symbol", "score", "mean_activation", "firing_rate", "n_tokens", "specificity"]
    rows = results.genes[results.genes["rank_score"] <= n_genes].sort_values(["feature", "rank_score"], kind="stable")
    about = (
        f"the {n_genes} genes of each feature with the highest score: sum of activation x expression over gene tokens"
    )
    _write(path, {"layer": results.layer, "about": about, "features": _grouped(rows, columns)})


def write_cells(path: Path, results: LayerResults, sample: CellSample | None, top: TopCells | None) -> None:
    """{"layer", "about", "features": {feature: {"cell_types": [...], "cells": [...]}}}.

    cell_types: held-out tests by AUROC. cells: the strongest of the sampled cells by maximum activation.
    """
    assert results.cell_types is not None
    columns = ["cell_type", "auroc", "effect_size", "q_value", "n_cells", "mean_in", "mean_out"]
    types = results.cell_types.sort_values(["feature", "auroc"], ascending=[True, False], kind="stable")
    types = types[types.groupby("feature").cumcount() < CELLS_LISTED]
    features: dict[str, dict[str, Any]] = {
        feature: {"cell_types": entries} for feature, entries in _grouped(types, columns).items()
    }
    about = f"cell types by held-out AUROC, at most {CELLS_LISTED}"
    if sample is not None and top is not None:
        about += f"; the {CELLS_LISTED} cells of highest activation among {len(sample.rows)} of {sample.n_all} cells"
        feature = np.repeat(np.arange(len(top.feature_ptr) - 1), np.diff(top.feature_ptr))
        cells = pd.DataFrame(
            {
                "feature": feature,
                "cell_id": pd.Series(sample.cell_id, dtype=object).to_numpy()[top.cell],
                "max_activation": top.activation.astype(float),
            }
        )
        for name, entries in _grouped(cells, ["cell_id", "max_activation"]).items():
            features.setdefault(name, {"cell_types": []})["cells"] = entries
    _write(path, {"layer": results.layer, "about": about, "features": features})


def _grouped(rows: pd.DataFrame, columns: list[str]) -> dict[str, list[dict[str, Any]]]:
    """feature, as text -> its rows as mappings; numbers to six digits, NaN as null (JSON has none)."""
    plain = rows[columns].copy()
    for name in columns:
        if plain[name].dtype.kind == "f":
            digits = [float(f"{value:.6g}") if np.isfinite(value) else None for value in plain[name]]
            plain[name] = pd.Series(digits, index=plain.index, dtype=object)
    records = plain.to_dict("records")
    features, starts = np.unique(rows["feature"].to_numpy(), return_index=True)
    ends = np.append(starts[1:], len(records))[: len(starts)]
    return {str(feature): records[start:end] for feature, start, end in zip(features, starts, ends, strict=True)}


def _write(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, allow_nan=False, ensure_ascii=False) + "\n")
