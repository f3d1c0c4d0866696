"""Which features are worth a reader's time: those that match something known first, the clearest first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from sae_genomics.artifacts.names import UNNAMED
from sae_genomics.config import RunConfig
from sae_genomics.report.collect import LayerResults

UNITS_SHOWN = 6
SAME_MATCH = 2
_LEAST_F1 = 0.3
_TERM_NAMES = {"q_matched": "term_q_value", "p_value": "term_p_value", "genes": "term_genes"}
_TERM_COLUMNS = ["term", "collection", "n_overlap", "n_term", *_TERM_NAMES]
_CONCEPT_COLUMNS = ["concept", "name", "f1_residue", "f1_span", "q_value", "f1_residue_chosen"]


def least_f1(config: RunConfig) -> float:
    """The F1 per residue from which a concept counts as found."""
    return float(getattr(config.associations, "concept_f1", _LEAST_F1))


def by_terms(results: LayerResults, fdr: float, n_best: int) -> pd.DataFrame:
    """The best features by gene sets and labels.

    Those that pass both tests (a gene set and a label at q < fdr, the label with AUROC > 0.5) come first, then those
    that pass one; within each group by the gene set's p, then by training AUROC's held-out value. At most two
    features with the same gene set are shown, or one large family would fill the list.

    Columns: those of features.parquet, `units` (names by specificity, a list), and of the best term `term`, `collection`,
    `n_overlap`, `n_term`, `term_q_value` (its q_matched), `term_p_value`, `term_genes` (null where there is none), `feature_name` (where
    features have names); `known` and `typed`, whether it passes the test with gene sets and with labels. The best term is the one
    that gives the feature its name, else that of the smallest p.
    """
    table, terms = _firing(results), results.table("terms")
    if terms is not None and len(terms):
        first = terms.drop_duplicates("feature").set_index("feature")[_TERM_COLUMNS].rename(columns=_TERM_NAMES)
        table = table.join(first, on="feature")
    else:
        for column in _TERM_COLUMNS:
            table[_TERM_NAMES.get(column, column)] = None if column in ("term", "collection", "genes") else np.nan
    names = results.table("names")
    if names is not None:
        table = table.join(names.set_index("feature")["name"].rename("feature_name"), on="feature")
        table["feature_name"] = table["feature_name"].fillna(UNNAMED)
    known = table["term_q_value"].astype(float) < fdr
    clearest = np.where(known, table["term_p_value"].astype(float).fillna(np.inf), np.inf)
    return _ordered(results, table, known, clearest, lambda row: row["term"], fdr, n_best)


def by_concepts(results: LayerResults, fdr: float, least_f1: float, n_best: int) -> pd.DataFrame:
    """The best features by concepts and labels: as `by_terms`, with a concept that is found in place of a gene set.

    A concept is found at a held-out f1_residue of least_f1 and q < fdr. Which concept stands beside a feature was chosen on the half
    that its threshold was chosen on. Columns: as of `by_terms`, with `concept`, `name`, `f1_residue`, `f1_span` and `concept_q_value`.
    """
    table, concepts = _firing(results), results.table("concepts")
    if concepts is not None and len(concepts):
        clearest_first = concepts.sort_values(["feature", "f1_residue_chosen"], ascending=[True, False], kind="stable")
        first = clearest_first.drop_duplicates("feature").set_index("feature")[_CONCEPT_COLUMNS]
        table = table.join(first.rename(columns={"q_value": "concept_q_value"}), on="feature")
    else:
        table = table.assign(concept=None, name=None, f1_residue=np.nan, f1_span=np.nan, concept_q_value=np.nan)
    known = (table["concept_q_value"].astype(float) < fdr) & (table["f1_residue"].astype(float) >= least_f1)
    clearest = np.where(known, -table["f1_residue"].astype(float).fillna(0), 0.0)
    return _ordered(results, table, known, clearest, lambda row: row["concept"], fdr, n_best)


def _firing(results: LayerResults) -> pd.DataFrame:
    features = results.table("features")
    assert features is not None
    return features[features["n_tokens"] > 0].copy()


def _ordered(
    results: LayerResults,
    table: pd.DataFrame,
    known: pd.Series,
    clearest: np.ndarray,
    match: Callable[[pd.DataFrame], pd.Series],
    fdr: float,
    n_best: int,
) -> pd.DataFrame:
    """Sorted, at most SAME_MATCH of a match, n_best in all; clearest: low for the clearest match."""
    typed = (table["best_label_q_value"] < fdr) & (table["best_label_auroc"] > 0.5)
    table["known"], table["typed"] = known, typed
    table["passed"] = known.astype(int) + typed.astype(int)
    order = np.lexsort(
        (
            -table["specificity"].fillna(-np.inf).to_numpy(),
            -table["best_label_auroc"].fillna(-np.inf).to_numpy(),
            clearest,
            -table["passed"].to_numpy(),
        )
    )
    table = table.iloc[order]
    family = match(table).where(table["known"], other=table["feature"].astype(str))
    shown = table[table.groupby(family).cumcount() < SAME_MATCH].head(n_best).reset_index(drop=True)
    units = unit_lists(results.table("units"), shown["feature"], UNITS_SHOWN)
    shown["units"] = [units.get(feature, []) for feature in shown["feature"]]
    return shown


def unit_lists(units: pd.DataFrame | None, features: pd.Series, n_units: int) -> dict[int, list[str]]:
    """feature -> names of its n_units most specific units, most specific first; of the given features alone."""
    if units is None:
        return {}
    top = units[(units["rank_specificity"] <= n_units) & units["feature"].isin(features)]
    return top.sort_values(["feature", "rank_specificity"]).groupby("feature")["unit_name"].agg(list).to_dict()
