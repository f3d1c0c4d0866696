"""A finished run with planted biology, written through the project's own tables and manifests.

The cells fall into types that lie apart on the embedding; a tenth of the features belongs to a type (its marker genes, its
cells), a tenth to a gene program that no type owns, the rest is noise. So it is known what a report must say.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import csr_matrix

from sae_genomics.artifacts import (
    ANNOTATION_NULLS,
    BASELINE_GENES,
    CELL_TYPE_BASELINES,
    CELLS,
    FEATURE_CELL_TYPES,
    FEATURE_GENES,
    FEATURE_TERMS,
    FEATURES,
    GENE_TOKENS,
    GENES,
)
from sae_genomics.associations.files import untrained_sae_files
from sae_genomics.associations.intervals import auroc_interval
from sae_genomics.atomic import write_json, write_text
from sae_genomics.config import RunConfig, dump_config, parse_config
from sae_genomics.models.base import ModelInfo
from sae_genomics.run import Run
from sae_genomics.sae.files import SAE_FILES
from sae_genomics.stages import stage_named
from sae_genomics.validation.names import write_names
from sae_genomics.validation.network_tables import write_network
from sae_genomics.validation.normal_form import schema
from sae_genomics.validation.regulon_tables import write_regulons
from tests.stage_names import OFF

MARKERS = {
    "CD4+ T Helper2": ["IL7R", "CD4", "LTB", "CCR7", "TCF7"],
    "CD8+ Cytotoxic T": ["CD8A", "CD8B", "GZMK", "CCL5", "CST7"],
    "CD14+ Monocyte": ["CD14", "LYZ", "S100A8", "S100A9", "FCN1"],
    "CD19+ B": ["CD79A", "CD79B", "MS4A1", "CD19", "CD74"],
    "CD56+ NK": ["NKG7", "GNLY", "KLRD1", "PRF1", "GZMB"],
    "Dendritic": ["FCER1A", "CST3", "CLEC10A", "CD1C", "HLA-DQA1"],
}
PROGRAMS = {
    "ribosome": ["RPL3", "RPS4X", "RPLP0", "RPS27A", "RPL13"],
    "cell cycle: G2/M": ["MKI67", "TOP2A", "CCNB1", "CDK1", "BIRC5"],
    "interferon response": ["ISG15", "IFI6", "MX1", "IFIT1", "IFIT3"],
    "mitochondrion": ["MT-CO1", "MT-ND1", "MT-CYB", "MT-ATP6", "MT-CO3"],
}
MARKUP = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "a|b*c_d`e$f")


@dataclass
class Plan:
    """What to plant. odd_names: genes, a type and a term whose names hold markup.
    networks: genes of a type or program touch each other, and its first gene regulates the others. groups: donors of the cells, a fifth held out."""

    name: str = "planted"
    layers: int = 3
    d_sae: int = 200
    n_cells: int = 400
    annotated: bool = True
    embedding: bool = True
    odd_names: bool = False
    terms: bool = True
    networks: bool = False
    groups: int = 0
    seed: int = 5


class PlantedRun(Run):
    """A Run whose model is described here instead of on disk; everything else is the real thing."""

    def __init__(self, config: RunConfig, n_layers: int, config_file: Path):
        super().__init__(config, config_file)
        self.model_info = ModelInfo("tx1", "planted model", n_layers, 64, 4, 512, 1_234_567, "planted")


def planted_run(root: Path, plan: Plan | None = None, **settings: dict) -> PlantedRun:
    """Write a whole finished run below `root`. settings: config sections, merged over small ones."""
    plan = plan or Plan()
    rng = np.random.default_rng(plan.seed)
    types = list(MARKERS)
    genes = sorted({gene for group in (*MARKERS.values(), *PROGRAMS.values()) for gene in group})
    genes += [f"GENE{number}" for number in range(120)]
    if plan.odd_names:
        genes[:2] = MARKUP[:2]
        genes[2] = MARKUP[2]
    label = rng.choice(len(types), plan.n_cells, p=[0.3, 0.22, 0.2, 0.14, 0.1, 0.04])
    heldout = rng.random(plan.n_cells) < 0.2
    input_file = root / "cells.h5ad"
    obs = pd.DataFrame({"bulk_labels": np.array(types)[label]}, index=[f"cell_{n}" for n in range(plan.n_cells)])
    cells = anndata.AnnData(csr_matrix(rng.poisson(0.3, (plan.n_cells, len(genes))).astype(np.float32)), obs=obs)
    cells.var_names = genes
    if plan.embedding:
        angle = 2 * np.pi * np.arange(len(types)) / len(types)
        centres = np.column_stack([5 * np.cos(angle), 3.5 * np.sin(angle)])
        cells.obsm["X_umap"] = centres[label] + rng.normal(0, 0.8, (plan.n_cells, 2))
    root.mkdir(parents=True, exist_ok=True)
    cells.write_h5ad(input_file)

    values: dict = {
        "run": {"name": plan.name},
        "paths": {
            "checkpoints": str(root / "checkpoints"),
            "results": str(root / "results"),
            "logs": str(root / "logs"),
            "databases": str(root / "databases"),
        },
        "data": {"path": str(input_file)},
        "sae": {"d_sae": plan.d_sae, "k": min(plan.d_sae, 16)},
        "activations": {"cells_per_shard": max(plan.n_cells // 2, 1)},
        **OFF,
    }
    if plan.annotated:
        values["data"]["cell_type_key"] = "bulk_labels"
    for section, keys in settings.items():
        values[section] = {**values.get(section, {}), **keys}
    config = parse_config(values, "planted")
    config_file = root / "planted.yaml"
    write_text(config_file, dump_config(config))
    run = PlantedRun(config, plan.layers, config_file)
    if plan.networks:
        _networks(root / "databases", genes)
    _prepare(run, plan, genes, label, heldout, types, rng)
    for shard in range(run.n_shards):
        _extract(run, shard)
    for task in range(plan.layers):
        _layer(run, task, plan, genes, label, heldout, types, obs, cells.obsm, rng)
    return run


def _finish(run: Run, stage: str, task: int) -> None:
    run.write_manifest(
        stage_named(stage),
        task,
        {
            "started": "2026-01-01T10:00:00+00:00", "seconds": 61.5 + task, "peak_memory_bytes": 412_000_000 + task, "host": "node7",
            "job": None, "versions": {"sae_genomics": "0.1.0", "python": "3.11.4", "torch": "2.5.1"},
        },
    )  # fmt: skip


def _prepare(run: Run, plan: Plan, genes: list[str], label, heldout, types: list[str], rng) -> None:
    rows = np.arange(len(genes))
    GENES.write(
        run.genes_file,
        pd.DataFrame({"column": rows, "gene_id": [f"ENSG{n:011d}" for n in rows], "gene_symbol": genes, "token": rows + 3,
                      "counts": rng.random(len(genes)) * 1000}),
    )  # fmt: skip
    names = np.array(types, dtype=object)[label] if plan.annotated else np.full(len(label), None, dtype=object)
    group = [f"donor{n % plan.groups}" for n in range(len(label))] if plan.groups else None
    CELLS.write(
        run.cells_file,
        pd.DataFrame({"cell": np.arange(len(label)), "cell_id": [f"cell_{n}" for n in range(len(label))], "heldout": heldout,
                      "cell_type": names, "group": group, "n_counts": 900.0, "n_genes": 80}),
    )  # fmt: skip
    write_json(
        run.plan_file,
        {
            "format_version": 1, "counts": {"where": "raw", "kind": "recovered", "target_sum": 1e4}, "gene_key": None,
            "symbol_key": None, "cell_type_key": "bulk_labels" if plan.annotated else None, "n_cells": len(label),
            "n_heldout": int(heldout.sum()), "n_genes_input": len(genes) + 20, "n_genes_matched": len(genes),
            "share_genes_matched": len(genes) / (len(genes) + 20), "share_counts_matched": 0.985,
            "shards": [], "n_tokens": 80 * len(label), "estimates": [],
            "notes": ["raw.X holds log1p of normalised counts; counts were recovered from it"],
            "obsm": ["X_umap"] if plan.embedding else [],
            **({"group_key": "donor", "n_groups": plan.groups, "n_heldout_groups": plan.groups // 5} if plan.groups else {}),
        },
    )  # fmt: skip
    _finish(run, "prepare", 0)


def _extract(run: Run, shard: int) -> None:
    for path in stage_named("extract").files(run, shard):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read by a report")
    _finish(run, "extract", shard)


def _layer(run: Run, task: int, plan: Plan, genes: list[str], label, heldout, types: list[str], obs, obsm, rng) -> None:
    layer, d_sae = run.layers[task], plan.d_sae
    programs = {**MARKERS, **PROGRAMS}
    names = list(programs)
    kind = np.full(d_sae, -1)
    n_planted = max(d_sae // 5, min(len(names), d_sae))
    kind[:n_planted] = np.arange(n_planted) % len(names)
    kind = rng.permutation(kind)
    dead = (kind < 0) & (rng.random(d_sae) < 0.06)
    _train(run, task, plan, dead, rng)

    # max activation a cell
    firing = rng.random((plan.n_cells, d_sae)) < np.where(kind >= 0, 0.25, 0.15)
    strength = rng.gamma(2.0, 1.0, (plan.n_cells, d_sae)).astype(np.float32)
    own_type = (kind >= 0) & (kind < len(types))
    member = own_type[None, :] & (label[:, None] == kind[None, :])
    firing |= member & (rng.random(member.shape) < 0.97)
    strength[member] += 4 + 0.5 * layer
    values = np.where(firing & ~dead, strength, 0).astype(np.float32)

    gene_rows = _feature_genes(programs, names, kind, dead, genes, rng)
    folder = run.layer_results(layer)
    FEATURE_GENES.write(folder / FEATURE_GENES.file, gene_rows)
    for table in BASELINE_GENES.values():
        table.write(folder / table.file, gene_rows.head(0))
    tokens = {"n_tokens_stored": 100, "mean_expression": 2.0, "n_tokens_untrained": 50}
    ids = [f"ENSG{n:011d}" for n in range(len(genes))]
    GENE_TOKENS.write(folder / GENE_TOKENS.file, pd.DataFrame({"gene_id": ids, "gene_symbol": genes}).assign(**tokens))
    tests, best = _feature_types(values, label, heldout, types, dead, plan.annotated, plan.groups // 5)
    FEATURE_CELL_TYPES.write(folder / FEATURE_CELL_TYPES.file, tests)
    CELL_TYPE_BASELINES.write(folder / CELL_TYPE_BASELINES.file, _baselines(tests, types, rng))
    rate = np.where(dead, 0, 10 ** rng.uniform(-4, -0.5, d_sae))
    top = gene_rows[gene_rows["rank_specificity"] == 1].set_index("feature")
    features = pd.DataFrame({
        "feature": np.arange(d_sae), "firing_rate": rate, "n_tokens": (rate * 80 * plan.n_cells).astype(int) + ~dead,
        "n_cells": (values > 0).sum(0), "mean_activation": np.where(dead, 0, 1.7), "max_activation": values.max(0),
        "heldout_firing_rate": rate * 0.98,
    })  # fmt: skip
    features["top_gene"] = features["feature"].map(top["gene_symbol"]).astype(object).where(~dead, None)
    features["specificity"] = features["feature"].map(top["specificity"])
    for column in ("best_cell_type", "best_cell_type_auroc", "best_cell_type_q_value"):
        features[column] = best[column] if best is not None else (None if column == "best_cell_type" else np.nan)
    FEATURES.write(folder / FEATURES.file, features)
    table = anndata.AnnData(
        csr_matrix(values),
        obs=obs.assign(heldout=heldout),
        var=features.drop(columns=["top_gene", "best_cell_type"]).set_index(pd.Index([f"F{n}" for n in range(d_sae)])),
    )
    table.obsm.update({key: np.asarray(value) for key, value in obsm.items()})
    table.write_h5ad(folder / "features.h5ad")
    for path in untrained_sae_files(run, layer):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read by a report")
    _finish(run, "associate", task)
    _validate(run, task, plan, gene_rows, programs, names, kind, dead, genes)


def _train(run: Run, task: int, plan: Plan, dead, rng) -> None:
    layer = run.layers[task]
    folder = run.sae_dir(layer)
    folder.mkdir(parents=True, exist_ok=True)
    for name in SAE_FILES:
        (folder / name).write_bytes(b"{}")
    write_json(
        folder / "metrics.json",
        {
            "layer": layer, "hook": f"blocks.{layer}.hook_resid_post", "architecture": "topk", "d_in": 64, "d_sae": plan.d_sae, "k": 16,
            "steps": 2000, "tokens_trained": 4_096_000, "fvu": 0.08 + 0.03 * task, "explained_variance": 0.92 - 0.03 * task,
            "l0": 15.2 + 0.1 * task, "dead_share": float(dead.mean()), "mean_abs_decoder_cosine": 0.071, "train_fvu": 0.07,
            "stability": 0.61 + 0.02 * task,
            "heldout_tokens": 61_234, "seconds": 44.0, "tokens_per_s": 93_000.0,
            "firing_rate_histogram": {"log10_edges": [-4, -3, -2, -1, 0], "counts": [1, 2, 3, 4]},
        },
    )  # fmt: skip
    _finish(run, "train", task)


def _feature_genes(programs: dict, names: list[str], kind, dead, genes: list[str], rng) -> pd.DataFrame:
    n_top = 12
    alive = np.flatnonzero(~dead)
    where = {gene: place for place, gene in enumerate(genes)}
    chosen = rng.random((len(alive), len(genes))).argsort(axis=1)[:, :n_top]
    for row, feature in enumerate(alive):
        if kind[feature] >= 0:
            own = [where[gene] for gene in programs[names[kind[feature]]] if gene in where]
            others = [gene for gene in chosen[row] if gene not in own]
            chosen[row] = (own + others)[:n_top]
    flat = chosen.ravel()
    rank = np.tile(np.arange(1, n_top + 1), len(alive))
    planted = np.repeat(kind[alive] >= 0, n_top)
    return pd.DataFrame({
        "feature": np.repeat(alive, n_top), "gene_id": np.array([f"ENSG{n:011d}" for n in range(len(genes))], dtype=object)[flat],
        "gene_symbol": np.array(genes, dtype=object)[flat], "score": 5000.0 / rank, "mean_activation": 2.0 / rank,
        "firing_rate": 0.6 / rank, "n_tokens": 900 // rank, "specificity": np.where(planted, 6.0, 3.0) - 0.3 * rank,
        "rank_score": n_top + 1 - rank, "rank_specificity": rank,
    })  # fmt: skip


def _basis(name: str, types: list[str], auroc, n_in: int, n_rest: int, n_groups: int) -> dict:
    """What stands beside an AUROC: of groups, the last type has too few."""
    low, high = auroc_interval(auroc, n_in, n_rest)
    few = bool(n_groups) and name == types[-1]
    return {
        "auroc_low": np.nan if few else low, "auroc_high": np.nan if few else high, "n_groups": 2 if few else n_groups or None,
        "unit_of_inference": "groups" if n_groups else "cells",
        "untested": "held-out groups with at least 5 cells of the type and 5 others: 2; a test needs 3" if few else None,
    }  # fmt: skip


def _feature_types(values, label, heldout, types: list[str], dead, annotated: bool, n_groups: int):
    d_sae = values.shape[1]
    if not annotated:
        empty = pd.DataFrame(
            {
                column.name: pd.Series(dtype=object if column.type == "string" else float)
                for column in FEATURE_CELL_TYPES.columns
            }
        )
        return empty, None
    parts = []
    area = {}
    for split, cells in (("auroc", heldout), ("auroc_train", ~heldout)):
        ranks = values[cells].argsort(axis=0).argsort(axis=0) + 1
        for place, _ in enumerate(types):
            inside = label[cells] == place
            n_in, n_rest = inside.sum(), (~inside).sum()
            area[split, place] = (ranks[inside].sum(0) - n_in * (n_in + 1) / 2) / max(n_in * n_rest, 1)
    for place, name in enumerate(types):
        inside = label[heldout] == place
        auroc = np.clip(area["auroc", place], 0, 1)
        p_value = 10.0 ** -(120 * (auroc - 0.5) ** 2 * min(inside.sum() / 5, 8))
        parts.append(pd.DataFrame({
            "feature": np.arange(d_sae), "cell_type": name, "n_cells": int(inside.sum()), "n_rest": int((~inside).sum()),
            "mean_in": values[heldout][inside].mean(0), "mean_out": values[heldout][~inside].mean(0), "auroc": auroc,
            "auroc_train": np.clip(area["auroc_train", place], 0, 1), "effect_size": 4 * (auroc - 0.5), "p_value": p_value,
            "q_value": np.minimum(p_value * 50, 1), **_basis(name, types, auroc, inside.sum(), (~inside).sum(), n_groups),
        })[~dead])  # fmt: skip
    tests = pd.concat(parts, ignore_index=True)
    tests.loc[tests["untested"].notna(), ["p_value", "q_value"]] = np.nan
    order = tests.sort_values("auroc_train", ascending=False).drop_duplicates("feature").set_index("feature")
    order = order.reindex(np.arange(d_sae))
    best = pd.DataFrame({
        "best_cell_type": order["cell_type"].astype(object).where(order["cell_type"].notna(), None),
        "best_cell_type_auroc": order["auroc"], "best_cell_type_q_value": order["q_value"],
    })  # fmt: skip
    return tests, best


def _baselines(tests: pd.DataFrame, types: list[str], rng) -> pd.DataFrame:
    rows = []
    for name in types if len(tests) else []:
        own = tests[tests["cell_type"] == name].sort_values("auroc_train", ascending=False).iloc[0]
        basis = {key: own[key] for key in ("n_groups", "unit_of_inference", "untested", "auroc_low", "auroc_high")}
        both = {"cell_type": name, "n_cells": int(own["n_cells"]), **basis}
        rows.append({**both, "kind": "feature", "unit": int(own["feature"]), "name": str(int(own["feature"])),
                     "auroc_train": own["auroc_train"], "auroc": own["auroc"]})  # fmt: skip
        for kind, unit, text, high in (
            ("gene", 5, MARKERS[name][0], 0.93),
            ("neuron", 17, "8-", 0.8),
            ("pca", 6, "3+", 0.85),
            ("untrained", 40, "40", 0.6),
        ):
            auroc = high + rng.uniform(-0.05, 0.05)
            low, high = (np.nan, np.nan) if own["untested"] else auroc_interval(auroc, own["n_cells"], own["n_rest"])
            rows.append({**both, "kind": kind, "unit": unit, "name": text, "auroc_train": auroc + 0.01, "auroc": auroc,
                         "auroc_low": float(low), "auroc_high": float(high)})  # fmt: skip
    return pd.DataFrame(rows, columns=[column.name for column in CELL_TYPE_BASELINES.columns])


def _validate(
    run: Run, task: int, plan: Plan, gene_rows: pd.DataFrame, programs: dict, names: list[str], kind, dead, genes
) -> None:
    folder = run.layer_results(run.layers[task])
    owned = np.flatnonzero((kind >= 0) & ~dead)
    rows = []
    for feature in owned if plan.terms else []:
        name = names[kind[feature]]
        shared = [gene for gene in programs[name] if gene in genes]
        term = f"{name} genes"
        if plan.odd_names and kind[feature] == 0:
            term = MARKUP[0]
        rows.append({"feature": feature, "collection": "builtin", "term": term, "n_overlap": len(shared), "n_term": 8, "n_top": 12,
                     "n_background": len(genes), "odds_ratio": 85.0, "odds_ratio_low": 20.0, "odds_ratio_high": 350.0,
                     "p_value": 1e-9 / (1 + feature), **dict.fromkeys(("q_value", "q_source"), 1e-6 / (1 + feature)),
                     "p_matched": 1e-8 / (1 + feature), **dict.fromkeys(("q_matched", "q_source_matched"), 1e-5 / (1 + feature)),
                     "term_id": term, "explained_by": "", "genes": ",".join(shared)})  # fmt: skip
        rows.append({**rows[-1], "term": "something by chance", "term_id": "something by chance", "n_overlap": 1,
                     "odds_ratio": 1.4, "odds_ratio_low": 0.3, "odds_ratio_high": 6.0, "p_value": 0.3, "p_matched": np.nan,
                     **dict.fromkeys(("q_value", "q_source"), 0.8), **dict.fromkeys(("q_matched", "q_source_matched"), 1.0),
                     "genes": shared[0]})  # fmt: skip
    columns = [column.name for column in FEATURE_TERMS.columns]
    terms = pd.DataFrame(rows, columns=columns)
    FEATURE_TERMS.write(folder / FEATURE_TERMS.file, terms)
    write_names(folder, terms, np.flatnonzero(~dead), [], 0.05, None)
    n_units, n_known = int((~dead).sum()), len(owned) if plan.terms else 0
    known = {"features": n_known, "neurons": n_known // 3}
    nulls = [
        row
        for units, n in known.items()
        for row in (
            (units, units, 0, n),
            *(("shuffled_genes", units, repeat, repeat % 2) for repeat in range(10)),
            *(("matched_genes", units, repeat, min(repeat % 3, n_units)) for repeat in range(10)),
        )
    ]
    ANNOTATION_NULLS.write(
        folder / ANNOTATION_NULLS.file,
        pd.DataFrame([
            {"source": source, "units": units, "collection": collection, "repeat": repeat, "n_units": n_units, "n_annotated": n, "share": n / n_units,
             "n_tests": 10 * n_units, "n_terms": min(n, len(names)), "terms_per_100_units": 100 * min(n, len(names)) / n_units}
            for collection in ("all", "builtin")
            for source, units, repeat, n in nulls
        ]),
    )  # fmt: skip
    write_network(run, run.layers[task])
    write_regulons(run, run.layers[task])
    _finish(run, "validate", task)


def _networks(folder: Path, genes: list[str]) -> None:
    """A network of proteins that touch, and regulons."""
    programs = [[gene for gene in group if gene in genes] for group in (*MARKERS.values(), *PROGRAMS.values())]
    touching = [(a, b, 0.9, 0) for group in programs for a, b in combinations(group, 2)]
    touching += [(a, b, 0.9, 0) for a, b in zip(genes, genes[7:], strict=False)]
    regulated = [(group[0], gene, np.nan, 1) for group in programs for gene in group[1:]]
    regulated += [("OTHER", gene, np.nan, 0) for gene in genes if gene.startswith("GENE")]
    for name, rows, directed, category in (
        ("string", touching, False, "physical"),
        ("trrust", regulated, True, "regulon"),
    ):
        columns = ["source_gene_symbol", "target_gene_symbol", "score", "sign"]
        frame = pd.DataFrame(rows, columns=columns).assign(category=category)
        frame = frame.reindex(columns=schema.EDGES.names).fillna(
            dict.fromkeys([*schema.EDGES.names[:7], "evidence"], "")
        )
        table = pa.Table.from_pandas(frame, schema=schema.EDGES, preserve_index=False)
        schema.write_table(folder / name / schema.EDGES_FILE, table)
        schema.write_source(folder / name, {"name": name, "directed": directed})
