"""feature_gene_associations.json and feature_cell_associations.json: the top entries, as earlier scripts had them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.atomic import write_text
from sae_genomics.report.cells import CellSample, TopCells
from sae_genomics.report.collect import LayerResults

GENES_FILE, CELLS_FILE = "feature_gene_associations.json", "feature_cell_associations.json"
CELLS_LISTED = 10


def write_genes(path: Path, results: LayerResults, n_genes: int) -> None:
    """{"layer", "about", "features": {feature: [{gene_id, gene_symbol, score, mean_activation, ...}]}}, by score."""
    units = results.table("units")
    assert units is not None
    genes = units.rename(columns={"unit_id": "gene_id", "unit_name": "gene_symbol"})
    columns = ["gene_id", "gene_symbol", "score", "mean_activation", "firing_rate", "n_tokens", "specificity"]
    rows = genes[genes["rank_score"] <= n_genes].sort_values(["feature", "rank_score"], kind="stable")
    about = (
        f"the {n_genes} genes of each feature with the highest score: sum of activation x expression over gene tokens"
    )
    _write(path, results.layer, about, _arrays(rows, columns))


def write_cells(path: Path, results: LayerResults, sample: CellSample | None, top: TopCells | None) -> None:
    """{"layer", "about", "features": {feature: {"cell_types": [...], "cells": [...]}}}.

    cell_types: held-out tests by AUROC. cells: the strongest of the sampled cells by maximum activation.
    """
    tests = results.table("labels")
    assert tests is not None
    tests = tests.rename(columns={"label": "cell_type", "n_items": "n_cells"})
    columns = ["cell_type", "auroc", "effect_size", "q_value", "n_cells", "mean_in", "mean_out"]
    types = tests.sort_values(["feature", "auroc"], ascending=[True, False], kind="stable")
    of_types = _arrays(types[types.groupby("feature").cumcount() < CELLS_LISTED], columns)
    about, of_cells = f"cell types by held-out AUROC, at most {CELLS_LISTED}", {}
    if "labels" in results.inference:
        about += f" ({results.inference['labels'].line().rstrip('.')})"
    if sample is not None and top is not None:
        about += f"; the {CELLS_LISTED} cells of highest activation among {len(sample.rows)} of {sample.n_all} cells"
        cells = pd.DataFrame(
            {
                "feature": np.repeat(np.arange(len(top.feature_ptr) - 1), np.diff(top.feature_ptr)),
                "cell_id": np.array(sample.cell_id, dtype=object)[top.cell],
                "max_activation": top.activation.astype(np.float64),
            }
        )
        of_cells = _arrays(cells, ["cell_id", "max_activation"])
    features = {
        feature: f'{{"cell_types": {of_types.get(feature, "[]")}, "cells": {of_cells.get(feature, "[]")}}}'
        for feature in sorted({*of_types, *of_cells})
    }
    _write(path, results.layer, about, features)


def _arrays(rows: pd.DataFrame, columns: list[str]) -> dict[int, str]:
    """feature -> its rows as the text of a JSON array, in order; NaN is null. Rows come sorted by feature."""
    if rows.empty:
        return {}
    lines = rows[columns].to_json(orient="records", lines=True, double_precision=10).rstrip("\n").split("\n")
    features, starts = np.unique(rows["feature"].to_numpy(), return_index=True)
    ends = np.append(starts[1:], len(lines))
    return {
        int(feature): "[" + ", ".join(lines[start:end]) + "]"
        for feature, start, end in zip(features, starts, ends, strict=True)
    }


def _write(path: Path, layer: int, about: str, features: dict[int, str]) -> None:
    entries = ",\n".join(f'"{feature}": {text}' for feature, text in features.items())
    write_text(path, f'{{"layer": {layer}, "about": {json.dumps(about)}, "features": {{\n{entries}\n}}}}\n')
