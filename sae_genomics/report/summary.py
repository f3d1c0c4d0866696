"""What one layer comes to, and the best over layers: the few numbers that text and figures are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts import Inference
from sae_genomics.report.annotation import Annotation
from sae_genomics.report.collect import LayerResults

RATE_EDGES = np.arange(-6.0, 0.01, 0.25)  # log10 of firing rates
BASELINE_KINDS = ("neuron", "pca", "ica", "untrained")
KINDS = ("feature", "unit", *BASELINE_KINDS)


@dataclass
class LayerSummary:
    """One layer in numbers. What a contribution keeps of a layer and no other reads stands in `parts`, under the contribution's name."""

    layer: int
    metrics: dict[str, Any] = field(default_factory=dict)
    n_features: int = 0
    n_silent: int = 0
    """features that never fire"""
    rates: npt.NDArray[np.int64] | None = None
    """features per bin of RATE_EDGES by firing rate"""
    annotation: Annotation | None = None
    nothing_tested: str | None = None
    """why no gene set could be tested; None where some were, or where the stage is not done"""
    baselines: pd.DataFrame | None = None
    """the best units of each label with q_value (features); low and high are the 95 % interval of auroc"""
    best: pd.DataFrame | None = None
    """rows of the features worth showing, see `best_features`"""
    inference: dict[str, Inference] = field(default_factory=dict)
    """see `collect.LayerResults`"""
    parts: dict[str, Any] = field(default_factory=dict)


def summarise(results: LayerResults) -> LayerSummary:
    """What every layer has: its metrics, how many features, how often they fire."""
    found = LayerSummary(results.layer, results.metrics or {}, inference=results.inference)
    features = results.table("features")
    if features is not None:
        rate = features["firing_rate"].to_numpy(np.float64)
        found.n_features = len(rate)
        found.n_silent = int((rate == 0).sum())
        with np.errstate(divide="ignore"):
            logs = np.clip(np.log10(rate[rate > 0]), RATE_EDGES[0], RATE_EDGES[-1])
        found.rates = np.histogram(logs, RATE_EDGES)[0]
    return found


def with_certainty(baselines: pd.DataFrame, label_tests: pd.DataFrame | None) -> pd.DataFrame:
    """The table with q_value of the feature's own test, and the ends of the AUROC's interval as low and high."""
    table = baselines.rename(columns={"auroc_low": "low", "auroc_high": "high"})
    table["q_value"] = np.nan
    if label_tests is not None and len(label_tests):
        tests = label_tests.set_index(["feature", "label"])["q_value"]
        tests = tests[~tests.index.duplicated()]
        own = table["kind"] == "feature"
        wanted = pd.MultiIndex.from_frame(table.loc[own, ["unit", "label"]])
        table.loc[own, "q_value"] = tests.reindex(wanted).to_numpy()
    return table


def best_over_layers(layers: list[LayerSummary]) -> pd.DataFrame | None:
    """Per label and kind the row of the layer with the highest training-cell AUROC.

    Choosing on training cells keeps the held-out AUROC an honest one however many layers there are. Columns as in
    `LayerSummary.baselines` and `layer`; None when no layer has any.
    """
    parts = [each.baselines.assign(layer=each.layer) for each in layers if each.baselines is not None]
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True)
    order = np.lexsort((table["layer"], -table["auroc_train"].fillna(-np.inf).to_numpy()))
    return table.iloc[order].drop_duplicates(["label", "kind"]).reset_index(drop=True)


def side_by_side(best: pd.DataFrame) -> pd.DataFrame:
    """One row per label: the columns of `best_over_layers` under (kind, column).

    Rows stand by the lower end of the feature's interval, so that a high AUROC of two cells does not come first.
    """
    wide = best.pivot(index="label", columns="kind").swaplevel(axis=1)
    wide = wide.reindex(columns=pd.MultiIndex.from_product([KINDS, wide.columns.get_level_values(1).unique()]))
    return wide.sort_values(
        [("feature", "low"), ("feature", "auroc")], ascending=False, kind="stable", na_position="last"
    )
