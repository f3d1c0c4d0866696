"""A dashboard from tables alone; and tables of as many features as a large run has, as dense with evidence as ten databases make them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from sae_genomics.artifacts import FEATURES, ITEM_NAMES
from sae_genomics.config import parse_config
from sae_genomics.report.cells import CellSample
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contributions import contributions
from sae_genomics.report.dashboard import Dashboard
from sae_genomics.report.dashboard_panel import PanelSettings
from sae_genomics.run import Run
from sae_genomics.validation.names import feature_names

# Database -> (how its ids are written, its number of terms).
SOURCES = {
    "open_targets": ("MONDO:{:07d}", 8000), "hpo": ("HP:{:07d}", 5000), "gwas_catalog": ("EFO:{:07d}", 3000), "disgenet": ("UMLS:C{:07d}", 4000),
    "monarch": ("MONDO:{:07d}", 4000), "omim": ("OMIM:{:06d}", 3000), "orphanet": ("ORPHA:{}", 2000), "clinvar": ("MONDO:{:07d}", 3000),
    "gencc": ("MONDO:{:07d}", 2000), "reactome": ("R-HSA-{}", 2000), "go": ("GO:{:07d}", 8000), "kegg": ("hsa{:05d}", 350),
}  # fmt: skip
N_GENES, N_CELLS, N_LABELS = 15_000, 3_000, 25
_WORDS = [
    "familial",
    "severe",
    "juvenile",
    "muscular",
    "renal",
    "cardiac",
    "syndrome",
    "deficiency",
    "abnormal",
    "signalling",
    "regulation",
    "response",
    "of",
    "to",
    "with",
    "type",
]


def write_page(path: Path, layers: list[LayerResults], sample: CellSample | None = None) -> None:
    """dashboard.html of these layers' results."""
    config = parse_config({"data": {"path": "cells.h5ad"}}, "test")
    sizes = [len(layer.tables["features"]) for layer in layers]
    settings = PanelSettings(config, sum(sizes), len(layers), sample)
    made = Dashboard([each.panel(settings) for each in contributions(Run(config)) if each.panel is not None])
    for layer in layers:
        made.add(layer)
    nouns = {"kind": "cells", "unit": "gene", "units": "genes", "item": "cell", "items": "cells", "token": "gene token", "tokens": "gene tokens",
             "label": "cell type", "labels": "cell types", "type": "type", "types": "types", "weighed": "activation", "find_example": "CD3E"}  # fmt: skip
    facts = [
        {"layer": layer.layer, "fvu": 0.1, "l0": 32.0, "n_features": size, "sources": []}
        for layer, size in zip(layers, sizes, strict=True)
    ]
    texts: dict[str, object] = {"title": "features", "facts": [], "headline": "", "notes": []}
    made.write(path, {**texts, "nouns": nouns, "fdr": 0.05, "layers": facts})


def dense_layers(n_layers: int, d_sae: int) -> tuple[list[LayerResults], CellSample]:
    """Layers of a large run, and its sample of cells."""
    rng = np.random.default_rng(0)
    sample = CellSample(
        np.arange(N_CELLS), [f"cell_{n}" for n in range(N_CELLS)], rng.integers(0, N_LABELS, N_CELLS).astype(np.int32),
        rng.random(N_CELLS) < 0.2, [f"type {n}" for n in range(N_LABELS)], N_CELLS, xy=rng.normal(size=(N_CELLS, 2)).astype(np.float32), basis="umap",
    )  # fmt: skip
    one = _layer(0, d_sae, rng)  # gzip looks back 32 kB: that the layers are the same makes the page no smaller
    return [replace(one, layer=layer) for layer in range(n_layers)], sample


def _layer(number: int, d_sae: int, rng: np.random.Generator) -> LayerResults:
    symbols = np.array([f"G{n:05d}A" for n in range(N_GENES)], dtype=object)
    popular = np.minimum(
        (rng.exponential(N_GENES / 4, size=(d_sae, 100))).astype(int), N_GENES - 1
    )  # each feature's top genes
    tables = {"features": features_table(d_sae, symbols[popular[:, 0]], rng), "units": _units(popular, symbols, rng)}
    tables["labels"] = _labels(d_sae, rng)
    tables["terms"] = _terms(popular, symbols, rng)
    tables["names"] = feature_names(tables["terms"], np.arange(d_sae), dict.fromkeys(SOURCES, ()), 0.05)
    tables["annotation_nulls"] = _nulls(d_sae)
    n_firing = rng.integers(0, 60, d_sae)
    indptr = np.concatenate([[0], np.cumsum(n_firing)])
    cells = rng.integers(0, N_CELLS, indptr[-1])
    activations = csr_matrix(
        (rng.gamma(2, 1, len(cells)).astype(np.float32), (cells, np.repeat(np.arange(d_sae), n_firing))),
        shape=(N_CELLS, d_sae),
    )
    return LayerResults(number, {}, tables, activations=activations)


def features_table(d_sae: int, top: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """features.parquet with numbers at random."""
    frame = pd.DataFrame({ITEM_NAMES.get(column.name, column.name): rng.random(d_sae) for column in FEATURES.columns})
    label = np.array([f"type {n}" for n in range(N_LABELS)], dtype=object)[rng.integers(0, N_LABELS, d_sae)]
    return frame.assign(feature=np.arange(d_sae), top_unit=top, best_label=label, n_items=rng.integers(0, 10**6, d_sae))


def _units(top: np.ndarray, symbols: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Ten genes by specificity, and ten others by score."""
    d_sae, n = len(top), 20
    flat, rank = top[:, :n].ravel(), np.tile(np.arange(1, n + 1), d_sae)
    return pd.DataFrame({
        "feature": np.repeat(np.arange(d_sae), n), "unit_id": np.array([f"ENSG{g:011d}" for g in range(N_GENES)], dtype=object)[flat],
        "unit_name": symbols[flat], "score": 10 ** rng.uniform(-2, 4, len(flat)), "specificity": rng.uniform(0, 9, len(flat)) / rank,
        "firing_rate": rng.random(len(flat)), "rank_score": (rank + 9) % n + 1, "rank_specificity": rank,
    })  # fmt: skip


def _labels(d_sae: int, rng: np.random.Generator) -> pd.DataFrame:
    n = d_sae * N_LABELS
    return pd.DataFrame({
        "feature": np.repeat(np.arange(d_sae), N_LABELS), "label": np.tile([f"type {k}" for k in range(N_LABELS)], d_sae), "auroc": rng.random(n),
        "effect_size": rng.normal(size=n), "q_value": rng.random(n) ** 8, "n_items": np.tile(rng.integers(20, 900, N_LABELS), d_sae), "n_groups": np.nan,
    })  # fmt: skip


def _terms(top: np.ndarray, symbols: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Two features of three have terms that pass, of most sources; the others have what chance gives."""
    d_sae, parts = len(top), []
    found = rng.random(d_sae) < 0.67
    for name, (pattern, n_terms) in SOURCES.items():
        words = np.array(_WORDS, dtype=object)[np.random.default_rng(n_terms).integers(0, len(_WORDS), (4, n_terms))]
        titles = (
            words[0]
            + " "
            + words[1]
            + " "
            + words[2]
            + " "
            + words[3]
            + np.array([f" {n}" for n in range(n_terms)], dtype=object)
        )
        ids = np.array([pattern.format(n) for n in range(n_terms)], dtype=object)
        sizes = rng.integers(5, 500, n_terms)
        per_feature = np.where(found & (rng.random(d_sae) < 0.7), 3, 1)
        feature = np.repeat(np.arange(d_sae), per_feature)
        n, term = len(feature), (n_terms * rng.random(len(feature)) ** 2).astype(int)
        passes = per_feature[feature] == 3
        p_value = np.where(passes, 10 ** rng.uniform(-20, -6, n), 10 ** rng.uniform(-2, 0, n))
        overlap = np.where(passes, rng.integers(4, 14, n), 1)
        position = rng.random((n, 40)).argsort(axis=1)
        genes = [
            ",".join(symbols[top[f, np.sort(row[:k])]]) for f, row, k in zip(feature, position, overlap, strict=True)
        ]
        odds = rng.uniform(2, 60, n)
        parts.append(pd.DataFrame({
            "feature": feature, "collection": name, "term": titles[term], "term_id": ids[term], "n_overlap": overlap, "n_term": sizes[term],
            "n_top": rng.integers(80, 100, n), "n_background": 12_000, "odds_ratio": odds, "odds_ratio_low": odds / 2, "odds_ratio_high": odds * 2,
            "p_value": p_value, "q_value": np.minimum(p_value * 100, 1), "q_source": np.minimum(p_value * 50, 1), "p_matched": p_value * 3,
            "q_matched": np.where(passes, p_value * 300, 1), "q_source_matched": np.where(passes, p_value * 150, 1),
            "explained_by": np.where(rng.random(n) < 0.1, ids[term], ""), "genes": genes,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True).sort_values(["feature", "p_value"], kind="stable", ignore_index=True)


def _nulls(d_sae: int) -> pd.DataFrame:
    """Every source matches a third of the features, and a twentieth by chance."""
    rows = []
    for collection in ("all", *SOURCES):
        for source, repeats, part in (("features", 1, 3), ("matched_genes", 20, 20), ("shuffled_genes", 20, 50)):
            for repeat in range(repeats):
                rows.append({"source": source, "units": "features", "collection": collection, "repeat": repeat, "n_units": d_sae,
                             "n_annotated": d_sae // part, "n_terms": 40 // part, "n_tests": 1, "share": 1 / part, "terms_per_100_units": 1.0})  # fmt: skip
    return pd.DataFrame(rows)
