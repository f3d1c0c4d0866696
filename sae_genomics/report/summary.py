"""What one layer comes to, and the best over layers: the few numbers that text and figures are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts import Inference
from sae_genomics.report.annotation import Annotation, annotation
from sae_genomics.report.collect import LayerResults

RATE_EDGES = np.arange(-6.0, 0.01, 0.25)  # log10 of firing rates
GENES_SHOWN = 6
BASELINE_KINDS = ("neuron", "pca", "ica", "untrained")
KINDS = ("feature", "gene", *BASELINE_KINDS)
_SAME_TERM = 2


@dataclass
class LayerSummary:
    """One layer in numbers.

    best: rows of the features worth showing, see `best_features`.
    baselines: cell_type_baselines with q_value (features); low and high are its 95 % interval of auroc.
    nothing_tested: why no gene set could be tested; None where some were, or where the stage is not done.
    rates: features per bin of RATE_EDGES by firing rate; n_silent: those that never fire.
    inference: see LayerResults.
    """

    layer: int
    metrics: dict[str, Any] = field(default_factory=dict)
    n_features: int = 0
    n_silent: int = 0
    rates: npt.NDArray[np.int64] | None = None
    annotation: Annotation | None = None
    nothing_tested: str | None = None
    baselines: pd.DataFrame | None = None
    best: pd.DataFrame | None = None
    inference: dict[str, Inference] = field(default_factory=dict)


def summarise(results: LayerResults, fdr: float, n_best: int) -> LayerSummary:
    """The layer's summary from what there is of its results."""
    found = LayerSummary(results.layer, results.metrics or {}, nothing_tested=results.nothing_tested)
    found.inference = results.inference
    if results.nulls is not None:
        found.annotation = annotation(results.nulls)
    if results.features is not None:
        rate = results.features["firing_rate"].to_numpy(np.float64)
        found.n_features = len(rate)
        found.n_silent = int((rate == 0).sum())
        with np.errstate(divide="ignore"):
            logs = np.clip(np.log10(rate[rate > 0]), RATE_EDGES[0], RATE_EDGES[-1])
        found.rates = np.histogram(logs, RATE_EDGES)[0]
        found.best = best_features(results, fdr, n_best)
    if results.baselines is not None and len(results.baselines):
        found.baselines = with_certainty(results.baselines, results.cell_types)
    return found


def with_certainty(baselines: pd.DataFrame, cell_types: pd.DataFrame | None) -> pd.DataFrame:
    """The table with q_value of the feature's own test, and the ends of the AUROC's interval as low and high."""
    table = baselines.rename(columns={"auroc_low": "low", "auroc_high": "high"})
    table["q_value"] = np.nan
    if cell_types is not None and len(cell_types):
        tests = cell_types.set_index(["feature", "cell_type"])["q_value"]
        tests = tests[~tests.index.duplicated()]
        own = table["kind"] == "feature"
        wanted = pd.MultiIndex.from_frame(table.loc[own, ["unit", "cell_type"]])
        table.loc[own, "q_value"] = tests.reindex(wanted).to_numpy()
    return table


def best_features(results: LayerResults, fdr: float, n_best: int) -> pd.DataFrame:
    """Features worth a reader's time.

    Those that pass both tests (a gene set and a cell type at q < fdr, the cell type with AUROC > 0.5) come first, then those
    that pass one; within each group by the gene set's p, then by training-cell AUROC's held-out value. At most two
    features with the same gene set are shown, or one large family would fill the list.

    Columns: those of features.parquet, `genes` (symbols by specificity, a list), and of the best term `term`, `collection`,
    `n_overlap`, `n_term`, `term_q_value`, `term_p_value`, `term_genes` (null where there is none); `known` and `typed`, whether it
    passes the test with gene sets and with cell types.
    """
    assert results.features is not None
    table = results.features[results.features["n_tokens"] > 0].copy()
    names = {"q_value": "term_q_value", "p_value": "term_p_value", "genes": "term_genes"}
    kept = ["term", "collection", "n_overlap", "n_term", *names]
    if results.terms is not None and len(results.terms):
        terms = results.terms.drop_duplicates("feature").set_index("feature")[kept].rename(columns=names)
        table = table.join(terms, on="feature")
    else:
        for column in kept:
            table[names.get(column, column)] = None if column in ("term", "collection", "genes") else np.nan
    known = table["term_q_value"].astype(float) < fdr
    typed = (table["best_cell_type_q_value"] < fdr) & (table["best_cell_type_auroc"] > 0.5)
    table["known"], table["typed"] = known, typed
    table["passed"] = known.astype(int) + typed.astype(int)
    order = np.lexsort(
        (
            -table["specificity"].fillna(-np.inf).to_numpy(),
            -table["best_cell_type_auroc"].fillna(-np.inf).to_numpy(),
            np.where(known, table["term_p_value"].astype(float).fillna(np.inf), np.inf),
            -table["passed"].to_numpy(),
        )
    )
    table = table.iloc[order]
    family = table["term"].where(table["term_q_value"].astype(float) < fdr, other=table["feature"].astype(str))
    shown = table[table.groupby(family).cumcount() < _SAME_TERM].head(n_best).reset_index(drop=True)
    genes = gene_lists(results.genes, shown["feature"], GENES_SHOWN)
    shown["genes"] = [genes.get(feature, []) for feature in shown["feature"]]
    return shown


def gene_lists(genes: pd.DataFrame | None, features: pd.Series, n_genes: int) -> dict[int, list[str]]:
    """feature -> symbols of its n_genes most specific genes, most specific first; of the given features alone."""
    if genes is None:
        return {}
    top = genes[(genes["rank_specificity"] <= n_genes) & genes["feature"].isin(features)]
    return top.sort_values(["feature", "rank_specificity"]).groupby("feature")["gene_symbol"].agg(list).to_dict()


def best_over_layers(layers: list[LayerSummary]) -> pd.DataFrame | None:
    """Per cell type and kind the row of the layer with the highest training-cell AUROC.

    Choosing on training cells keeps the held-out AUROC an honest one however many layers there are. Columns as in
    `LayerSummary.baselines` and `layer`; None when no layer has any.
    """
    parts = [each.baselines.assign(layer=each.layer) for each in layers if each.baselines is not None]
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True)
    order = np.lexsort((table["layer"], -table["auroc_train"].fillna(-np.inf).to_numpy()))
    return table.iloc[order].drop_duplicates(["cell_type", "kind"]).reset_index(drop=True)


def side_by_side(best: pd.DataFrame) -> pd.DataFrame:
    """One row a cell type: the columns of `best_over_layers` under (kind, column).

    Rows stand by the lower end of the feature's interval, so that a high AUROC of two cells does not come first.
    """
    wide = best.pivot(index="cell_type", columns="kind").swaplevel(axis=1)
    wide = wide.reindex(columns=pd.MultiIndex.from_product([KINDS, wide.columns.get_level_values(1).unique()]))
    return wide.sort_values(
        [("feature", "low"), ("feature", "auroc")], ascending=False, kind="stable", na_position="last"
    )
