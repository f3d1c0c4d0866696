"""Tables of the stage concepts, planted beside a planted run: one concept of each verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sae_genomics.artifacts import (
    CONCEPT_FEATURES,
    CONCEPT_LOCALISATION,
    CONCEPT_TCAV,
    CONCEPT_VECTORS,
    CONCEPT_WINDOWS,
    Table,
)
from sae_genomics.checked_json import write_checked_json
from sae_genomics.concepts.choosing import MEASURES, RULES
from sae_genomics.concepts.files import THRESHOLDS_FILE
from sae_genomics.run import Run

BEST_LAYER = 1
# id of each concept without its kind -> AUROC in BEST_LAYER, of composition, p, beyond composition
PLANTED = {
    "known": (0.98, 0.7, 0.01, True),
    "composed": (0.9, 0.93, 0.01, False),
    "unknown": (0.55, 0.6, 0.6, False),
    "small": (None, None, None, False),
}
LETTERS = list("YKCPECGKSFSRSSHLTRHQRTHMAAKLVA")


def enable(run: Run) -> None:
    """Let the run have the stage."""
    run.config = run.config.model_copy(update={"concepts": run.config.concepts.model_copy(update={"enabled": True})})


def write_concepts(run: Run, names: dict[str, str], kind: str, without: tuple[str, ...] = ()) -> None:
    """All tables of every layer. names: of the concepts of PLANTED. without: files that are not there."""
    for layer in run.layers:
        folder = run.layer_results(layer)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {
            CONCEPT_VECTORS: _vectors(layer, names, kind), CONCEPT_LOCALISATION: _localisation(names, kind), CONCEPT_WINDOWS: _windows(names, kind),
            CONCEPT_FEATURES: _features(names, kind), CONCEPT_TCAV: _tcav(names, kind),
        }  # fmt: skip
        for table, frame in tables.items():
            if table.file not in without:
                _write(table, run, layer, frame)
        if THRESHOLDS_FILE not in without:
            write_checked_json(folder / THRESHOLDS_FILE, {"concepts": [_threshold(names, kind)]})


def _write(table: Table, run: Run, layer: int, frame: pd.DataFrame) -> None:
    note = "No concept of this run has annotated spans, so there is nothing to find." if frame.empty else None
    absent = {
        column.name: pd.Series(dtype=object) if frame.empty else None
        for column in table.columns
        if column.name not in frame
    }
    table.write(run.layer_results(layer) / table.file, frame.assign(**absent), note=note)


def _vectors(layer: int, names: dict[str, str], kind: str) -> pd.DataFrame:
    rows = []
    for key, (auroc, composition, p, beyond) in PLANTED.items():
        less = 0.0 if layer == BEST_LAYER else 0.03
        both = {
            "concept": f"{kind}:{key}", "kind": kind, "name": names[key], "level": "token" if kind == "span" else "item", "n_positive": 90, "n_negative": 400,
            "n_heldout_positive": 20, "n_heldout_negative": 80, "n_items": 60, "n_groups": 12, "split_by": "group", "n_shuffled": 99, "n_random": 99,
            "beyond_composition": beyond and layer == BEST_LAYER, "untested": None,
        }  # fmt: skip
        if auroc is None:
            rows.append({**both, "untested": "too few held-out groups"})
            continue
        rows.append({
            **both, "strength": 0.1, "auroc": auroc - less, "auroc_low": auroc - less - 0.08, "auroc_high": min(auroc - less + 0.05, 1.0), "auprc": auroc - 0.1,
            "auprc_low": auroc - 0.2, "auprc_high": auroc, "prevalence": 0.2, "stability": 0.9, "cosine_means": 0.8, "null_shuffled": 0.5, "null_random": 0.54,
            "p_shuffled": p, "p_random": p, "p_value": p, "q_value": p, "auroc_composition": composition, "auroc_position": 0.5,
            "difference": auroc - composition, "difference_low": auroc - composition - 0.05, "difference_high": auroc - composition + 0.05,
            "strongest_confound": "length", "auroc_confound": 0.83 if key == "known" else 0.6, "auroc_matched": 0.95,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _localisation(names: dict[str, str], kind: str) -> pd.DataFrame:
    if kind != "span":
        return pd.DataFrame()
    values = {
        "n_items": 40, "n_groups": 12, "n_spans": 55, "window": 12, "iou": 0.71, "iou_low": 0.6, "iou_high": 0.8, "iou_ceiling": 0.93, "iou_random": 0.11,
        "iou_random_high": 0.15, "p_value": 0.01, "q_value": 0.02, "hits": 0.9, "hits_low": 0.8, "hits_high": 0.95, "auprc": 0.8, "auprc_low": 0.7,
        "auprc_high": 0.9, "prevalence": 0.13,
    }  # fmt: skip
    return pd.DataFrame([{"concept": f"{kind}:{key}", "name": names[key], **values} for key in ("known", "composed")])


def _windows(names: dict[str, str], kind: str) -> pd.DataFrame:
    if kind != "span":
        return pd.DataFrame()
    n, rows = len(LETTERS), []
    for choice, number in (("best", 5), ("worst", 5), ("random", 3)):
        for rank in range(1, number + 1):
            span = (np.arange(n) >= 5) & (np.arange(n) < 17)
            rows.append({
                "concept": f"{kind}:known", "name": names["known"], "choice": choice, "rank": rank, "item_id": f"P<{choice}>{rank}",
                "iou": {"best": 0.9, "worst": 0.1, "random": 0.6}[choice], "start": 41, "length": 200, "units": LETTERS,
                "scores": np.where(span, 1.0, -0.4).astype(np.float32), "in_span": span, "in_window": np.roll(span, 2),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _features(names: dict[str, str], kind: str) -> pd.DataFrame:
    values = {"cosine": 0.7, "share_random": 0.1, "share_covariance": 0.3, "share_chance": 0.5}
    rows = []
    for key, carried in (("known", True), ("composed", False)):
        for rank, (feature, weight) in enumerate(((3, 0.8), (7, 0.4), (None, 0.0)), 1):
            rows.append({
                "concept": f"{kind}:{key}", "name": names[key], "rank": rank, "feature": feature, "weight": weight, "share": 0.6 + 0.1 * rank,
                "p_value": 0.01 if carried else 0.4, "carried": carried, **values,
            })  # fmt: skip
    return pd.DataFrame(rows).astype({"feature": "Int32"})


def _tcav(names: dict[str, str], kind: str) -> pd.DataFrame:
    values = {
        "target": "span" if kind == "span" else "markers", "targets": "", "n_items": 12, "n_groups": 11, "share_positive": 0.92, "share_random": 0.5,
        "share_random_low": 0.1, "share_random_high": 0.9, "derivative": 0.02, "derivative_low": 0.01, "derivative_high": 0.03, "derivative_random_low": -0.01,
        "derivative_random_high": 0.01, "derivative_shuffled_low": -0.008, "derivative_shuffled_high": 0.007, "n_shuffled": 99, "n_random": 99,
        "p_directions": 0.01, "p_shuffled": 0.02, "p_random": 0.01, "p_value": 0.02, "q_value": 0.03,
    }  # fmt: skip
    return pd.DataFrame([{"concept": f"{kind}:known", "name": names["known"], **values}])


def _threshold(names: dict[str, str], kind: str) -> dict[str, object]:
    at = {"threshold": 0.25, "f1_validation": 0.9, **{name: [0.9, 0.8, 0.96] for name in MEASURES}}
    return {
        "concept": f"{kind}:known", "name": names["known"], "score": "window" if kind == "span" else "mean", "n_test": 80, "n_test_positive": 20, "n_test_groups": 12, "prevalence": 0.25,
        "thresholds": dict.fromkeys(RULES, at),
    }  # fmt: skip
