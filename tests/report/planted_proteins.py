"""A finished run on proteins with planted concepts, written through the tables alone: no model, no prepare.

Three kinds of domain are planted. Some features mark one of them, some are one amino acid, the rest is noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.artifacts import (
    CONCEPT_BASELINES,
    CONCEPT_COUNTS,
    FEATURE_CONCEPTS,
    FEATURE_EXAMPLES,
    FEATURE_LABELS,
    FEATURE_UNITS,
    ITEM_FEATURES,
    LABEL_BASELINES,
    Table,
)
from sae_genomics.atomic import write_json
from sae_genomics.config import RunConfig, parse_config
from sae_genomics.models.base import ModelInfo
from sae_genomics.run import Run, State
from sae_genomics.stages import Stage
from tests.stage_names import OFF

NAMES = (
    "Ala", "Cys", "Asp", "Glu", "Phe", "Gly", "His", "Ile", "Lys", "Leu", "Met", "Asn", "Pro", "Gln", "Arg", "Ser", "Thr", "Val", "Trp",
    "Tyr",
)  # fmt: skip
AMINO_ACIDS = dict(zip("ACDEFGHIKLMNPQRSTVWY", NAMES, strict=True))
CONCEPTS = {
    "PF00096": ("Zinc finger, C2H2 type", "YKCPECGKSFSRSSHLTRHQRTH"),
    "PF00036": ("EF-hand", "EADTDGDGKISFEEFVALM"),
    "PF00071": ("P-loop <b>NTPase</b>", "GAGGVGKSALTIQL"),
}
FAMILIES = ("zinc finger proteins", "calmodulins", "small GTPases", "lysozymes")
SYNTHETIC = "The proteins are synthetic: a generator of this project made them, and no such protein exists."
N_PROTEINS, N_HELDOUT = 300, 60


@dataclass
class ProteinPlan:
    """What to plant. spans, labels, examples: whether the tables of these are there."""

    layers: int = 3
    d_sae: int = 64
    spans: bool = True
    labels: bool = True
    examples: bool = True
    odd_names: bool = True
    seed: int = 3


class PlantedProteinRun(Run):
    """A Run on proteins of which everything that is there counts as done."""

    def __init__(self, config: RunConfig, plan: ProteinPlan):
        super().__init__(config)
        self.plan = plan
        self.model_info = ModelInfo("esm2", "planted protein model", plan.layers, 64, 4, 33, 1_234_567, "planted")
        self.__dict__ |= {"n_items": N_PROTEINS, "n_shards": 1}  # told without the input

    def state(self, stage: Stage, task: int, layer: int | None = None) -> State:
        return State("missing", "not for proteins") if stage.name == "validate" else State("done")

    def states(self, stage: Stage) -> list[State]:
        return [State("done")] * self.n_tasks(stage)

    def n_tasks(self, stage: Stage) -> int:
        return 0 if stage.name == "validate" else super().n_tasks(stage)


def planted_proteins(root: Path, plan: ProteinPlan | None = None) -> PlantedProteinRun:
    """Write a whole finished run below `root`."""
    plan = plan or ProteinPlan()
    rng = np.random.default_rng(plan.seed)
    paths = {name: str(root / name) for name in ("checkpoints", "results", "logs")}
    data = {"kind": "proteins", "path": str(root / "proteins.fasta"), "label_key": "family", "group_key": "cluster"}
    if plan.spans:
        data["spans"] = str(root / "spans.tsv")
    for name in (
        "proteins.fasta",
        "spans.tsv",
    ):  # what a run has follows from what its config names; nothing reads them
        root.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(">planted\nMK\n")
    values = {
        "run": {"name": "planted_proteins"}, "paths": paths, "data": data,
        "model": {"family": "esm2"},
        "sae": {"d_sae": plan.d_sae, "k": 8},
        **OFF,
    }  # fmt: skip
    run = PlantedProteinRun(parse_config(values, "planted"), plan)
    _prepare(run, rng)
    for layer in run.layers:
        _train(run, layer)
        _associate(run, layer, rng)
    return run


def _write(table: Table, folder: Path, frame: pd.DataFrame) -> None:
    """With nothing in the columns that are not planted."""
    absent = {column.name: None for column in table.columns if column.name not in frame}
    table.write(folder / table.file, frame.assign(**absent), inference=table.inference)


def _prepare(run: PlantedProteinRun, rng: np.random.Generator) -> None:
    plan, family = run.plan, rng.integers(0, len(FAMILIES), N_PROTEINS)
    run.prepare_dir.mkdir(parents=True)
    write_json(
        run.plan_file,
        {
            "kind": "proteins", "n_items": N_PROTEINS, "n_items_input": N_PROTEINS, "n_heldout": N_HELDOUT, "n_tokens": 40_000,
            "n_tokens_read": 40_600, "shards": [], "estimates": [], "label_key": "family", "group_key": "cluster", "n_groups": 40, "n_heldout_groups": 8,
            "notes": [SYNTHETIC],
        },
    )  # fmt: skip
    label = np.array(FAMILIES, dtype=object)[family] if plan.labels else None
    heldout = np.arange(N_PROTEINS) % 5 == 0
    items = pd.DataFrame({"item": np.arange(N_PROTEINS), "heldout": heldout, "label": label})
    items.astype({"label": "string"}).to_parquet(run.prepare_dir / "items.parquet")
    if plan.spans:
        concept = np.array(list(CONCEPTS), dtype=object)[rng.integers(0, len(CONCEPTS), 200)]
        pd.DataFrame({"concept": concept}).to_parquet(run.prepare_dir / "spans.parquet")


def _train(run: PlantedProteinRun, layer: int) -> None:
    folder = run.sae_dir(layer)
    folder.mkdir(parents=True)
    write_json(
        folder / "metrics.json",
        {
            "layer": layer, "d_sae": run.plan.d_sae, "k": 8, "architecture": "topk", "steps": 1000, "tokens_trained": 1_000_000,
            "fvu": 0.2 + 0.02 * layer, "explained_variance": 0.8, "l0": 7.9, "dead_share": 0.03, "heldout_tokens": 8_000,
            "mean_abs_decoder_cosine": 0.09, "stability": 0.6, "loss_recovered": 0.91, "loss_recovered_interval": [0.88, 0.94],
            "loss_items": 60, "identity_variance": 0.4, "fvu_centred": 0.33, "loss_recovered_by_means": 0.5, "centre": "unit",
            "weights": "0123abcd",
        },
    )  # fmt: skip


def _associate(run: PlantedProteinRun, layer: int, rng: np.random.Generator) -> None:
    plan, folder = run.plan, run.layer_results(layer)
    folder.mkdir(parents=True, exist_ok=True)
    d_sae, letters = plan.d_sae, list(AMINO_ACIDS)
    kind = np.full(d_sae, -1)  # 0..2: a concept; 10 + n: amino acid n
    kind[: 3 * len(CONCEPTS)] = np.arange(3 * len(CONCEPTS)) % len(CONCEPTS)
    kind[9:19] = 10 + rng.permutation(20)[:10]
    dead = np.arange(d_sae) == d_sae - 1
    _write(FEATURE_UNITS, folder, _units(kind, dead, letters, rng))
    labels, baselines = _labels(kind, dead, rng)
    _write(FEATURE_LABELS, folder, labels if plan.labels else labels.head(0))
    _write(LABEL_BASELINES, folder, baselines if plan.labels else baselines.head(0))
    best = labels.sort_values("auroc_train", ascending=False).drop_duplicates("feature").set_index("feature")
    feature = pd.Series(np.arange(d_sae))
    top = np.array([AMINO_ACIDS[letters[k - 10]] if k >= 10 else "Gly" for k in kind], dtype=object)
    rate = np.where(dead, 0, np.where(kind >= 10, 0.05, 10 ** rng.uniform(-3.5, -1.5, d_sae)))
    features = pd.DataFrame({
        "feature": feature, "firing_rate": rate, "n_tokens": (rate * 40_000).astype(int), "n_items": np.where(dead, 0, 120),
        "mean_activation": np.where(dead, 0, 1.2), "max_activation": np.where(dead, 0, 4.0 + rng.random(d_sae)),
        "heldout_firing_rate": rate, "top_unit": np.where(dead, None, top), "specificity": np.where(dead, np.nan, np.where(kind >= 10, 4.1, 0.8)),
        "best_label": feature.map(best["label"]) if plan.labels else None,
        "best_label_auroc": feature.map(best["auroc"]) if plan.labels else np.nan,
        "best_label_q_value": feature.map(best["q_value"]) if plan.labels else np.nan,
    })  # fmt: skip
    _write(ITEM_FEATURES, folder, features)
    if plan.spans:
        _concepts(folder, layer, kind, rng)
    if plan.examples:
        _examples(folder, kind, dead, features["max_activation"].to_numpy(), plan.odd_names, rng)


def _units(kind: np.ndarray, dead: np.ndarray, letters: list[str], rng: np.random.Generator) -> pd.DataFrame:
    parts = []
    for feature in np.flatnonzero(~dead):
        score = rng.gamma(2.0, 20.0, len(letters))
        if kind[feature] >= 10:
            score = np.where(np.arange(len(letters)) == kind[feature] - 10, 5000.0, score / 50)
        rank = (-score).argsort().argsort() + 1
        parts.append(pd.DataFrame({
            "feature": feature, "unit_id": letters, "unit_name": list(AMINO_ACIDS.values()), "score": score, "mean_activation": score / 2000,
            "firing_rate": np.minimum(score / 5000, 1), "n_tokens": score.astype(int), "specificity": np.log2(score / score.mean()),
            "rank_score": rank, "rank_specificity": rank,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _labels(kind: np.ndarray, dead: np.ndarray, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, basis = [], {"n_groups": 8, "unit_of_inference": "groups", "untested": None}
    for feature in np.flatnonzero(~dead):
        for place, name in enumerate(FAMILIES):
            auroc = 0.93 - 0.01 * feature if kind[feature] == place else 0.5 + 0.05 * rng.random()
            rows.append({
                "feature": feature, "label": name, "n_items": 15, "n_rest": 45, "mean_in": 2.0, "mean_out": 1.0, "auroc": auroc,
                "auroc_low": auroc - 0.1, "auroc_high": min(auroc + 0.05, 1), "auroc_train": auroc + 0.01, "effect_size": 1.1,
                "p_value": 1e-6 if auroc > 0.8 else 0.4, "q_value": 1e-4 if auroc > 0.8 else 0.7, **basis,
            })  # fmt: skip
    tests = pd.DataFrame(rows)
    best = []
    for name, own in tests.groupby("label", sort=False):
        first = own.sort_values("auroc_train", ascending=False).iloc[0]
        both = {"label": name, "n_items": 15, **basis}
        for what, unit, text, auroc in (
            ("feature", first["feature"], str(first["feature"]), first["auroc"]),
            ("unit", 4, "Cys", 0.71),
            ("neuron", 7, "3-", 0.66),
        ):
            best.append({**both, "kind": what, "unit": unit, "name": text, "auroc_train": auroc + 0.01, "auroc": auroc,
                         "auroc_low": auroc - 0.1, "auroc_high": min(auroc + 0.05, 1)})  # fmt: skip
    return tests, pd.DataFrame(best)


def _scores(f1: float) -> dict[str, float]:
    return {
        "precision_residue": f1 + 0.05, "recall_residue": f1 - 0.05, "f1_residue": f1, "precision_span": f1 + 0.15,
        "recall_span": f1 + 0.05, "f1_span": f1 + 0.1, "f1_residue_chosen": f1 + 0.02,
    }  # fmt: skip


def _concepts(folder: Path, layer: int, kind: np.ndarray, rng: np.random.Generator) -> None:
    rows, best = [], []
    for place, (concept, (name, _)) in enumerate(CONCEPTS.items()):
        both = {"concept": concept, "name": name, "n_spans": 40 + place, "n_proteins": 30 + place}
        for feature in range(30):
            f1 = (
                0.8 - 0.1 * place - 0.01 * feature + 0.02 * layer
                if kind[feature] == place
                else 0.02 + 0.05 * rng.random()
            )
            rows.append({**both, "feature": feature, "threshold": 0.7, "n_residues": 900, **_scores(f1), "n_groups": 8, "odds_ratio": 40.0,
                         "p_value": 1e-12 if f1 > 0.3 else 0.3, "q_value": 1e-10 if f1 > 0.3 else 0.6})  # fmt: skip
        first = max((row for row in rows if row["concept"] == concept), key=lambda row: row["f1_residue_chosen"])
        for what, unit, text, f1 in (
            ("feature", first["feature"], str(first["feature"]), first["f1_residue"]), ("neuron", 12, "6+", 0.31 - 0.1 * place),
            ("random", 5, "5", 0.2), ("composition", 1, "Cys", 0.25), ("position", 2, "first tenth", 0.08),
        ):  # fmt: skip
            best.append(
                {
                    **both,
                    "kind": what,
                    "unit": unit,
                    "unit_name": text,
                    "threshold": 0.6,
                    **_scores(f1),
                    "q_value": 1e-8,
                }
            )
    _write(FEATURE_CONCEPTS, folder, pd.DataFrame(rows))
    _write(CONCEPT_BASELINES, folder, pd.DataFrame(best))
    criterion = "F1 per residue of at least 0.3 and q below 0.05, both on the half that chose nothing"
    counts = [
        ("feature", 64, 9, 3),
        ("neuron", 128, 4, 1),
        ("random", 64, 1, 0),
        ("composition", 20, 0, 0),
        ("position", 10, 0, 0),
    ]
    _write(CONCEPT_COUNTS, folder,
        pd.DataFrame([
            {"kind": what, "n_units": n, "n_units_with_concept": with_concept, "n_concepts_found": found, "n_concepts_tested": 3,
             "criterion": criterion}
            for what, n, with_concept, found in counts
        ]),
    )  # fmt: skip


def _examples(
    folder: Path, kind: np.ndarray, dead: np.ndarray, largest: np.ndarray, odd: bool, rng: np.random.Generator
) -> None:
    letters, motifs, rows = list(AMINO_ACIDS), list(CONCEPTS.values()), []
    for feature in np.flatnonzero(~dead):
        for rank in range(1, 6):
            text = "".join(rng.choice(letters, 41))
            values = np.zeros(41, np.float32)
            about = ""
            if 0 <= kind[feature] < 10:
                about, motif = motifs[kind[feature]]
                text = text[:9] + motif + text[9 + len(motif) :]
                values[9 : 9 + len(motif)] = rng.random(len(motif)) * largest[feature] * 0.8
            values[20] = largest[feature] / rank
            values = np.minimum(values, values[20])
            start = int(rng.integers(1, 300))
            rows.append({
                "feature": feature, "rank": rank, "item_index": rank, "item_id": f"SYN{feature:03d}{rank}",
                "name": "<img src=x onerror=alert(1)> ``` end" if odd and rank == 1 else (f"made-up protein {rank}" if rank < 4 else None),
                "max_activation": float(values[20]), "position": start + 20, "start": start, "residues": text,
                "activations": values.tolist(), "concepts": about,
            })  # fmt: skip
    _write(FEATURE_EXAMPLES, folder, pd.DataFrame(rows))
