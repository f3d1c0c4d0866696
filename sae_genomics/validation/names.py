"""A short automatic name for each feature: its strongest, most specific term that passes the matched null.

Of the terms of a feature with q_matched < validation.fdr, those that a more specific found term explains are set aside. The strength
of a term is p = max(p_value, p_matched). With p* the smallest of them, every term with p <= 10 p* counts as equally strong, and the
one with the fewest genes gives the name. Why a factor of ten: p depends on one gene more or less in list or set, so smaller
differences say nothing, and p alone prefers large sets, whose names say little.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts.names import FEATURE_NAMES, UNNAMED
from sae_genomics.validation.gene_sets import Collection
from sae_genomics.validation.independence import Contains, counted_once

EQUALLY_STRONG = 10.0
SAME_GENES = 0.5  # share of the name's genes that another source's term must have, to agree
LONGEST = 60


def write_names(
    folder: Path,
    terms: pd.DataFrame,
    features: npt.NDArray[np.integer],
    collections: Sequence[Collection],
    fdr: float,
    weights: str | None,
) -> None:
    """Leave feature_names.parquet in a layer's folder; see `feature_names`. weights: content hash of the SAE's weights."""
    contains = {collection.name: collection.contains for collection in collections}
    FEATURE_NAMES.write(folder / FEATURE_NAMES.file, feature_names(terms, features, contains, fdr), weights=weights)


def feature_names(
    terms: pd.DataFrame, features: npt.NDArray[np.integer], contains: Contains, fdr: float
) -> pd.DataFrame:
    """The rows of feature_names.parquet, by feature.

    terms: feature_terms.parquet. features: latent indices that get a row, distinct. contains: collection -> what it contains, of all
    collections that were tested.
    """
    found = terms[terms["q_matched"] < fdr].reset_index(drop=True)
    named = strongest(found)
    sources = agreeing_sources(
        found, named, {**contains, **{name: () for name in found["collection"] if name not in contains}}
    )
    named = named.assign(name=short_names(named), sources=sources).set_index("feature")
    table = named.reindex(np.sort(np.asarray(features, dtype=np.int64)))
    table.index.name = "feature"
    texts = {"name": UNNAMED, "collection": "", "term": "", "term_id": "", "sources": ""}
    for column, nothing in texts.items():
        table[column] = table[column].astype(object).where(table[column].notna(), nothing)
    table["n_overlap"] = table["n_overlap"].fillna(0).astype(np.int32)
    return table.reset_index()[[column.name for column in FEATURE_NAMES.columns]]


def strongest(found: pd.DataFrame) -> pd.DataFrame:
    """One row of `found` per feature that has any, by feature. found: rows of feature_terms.parquet that pass."""
    p = np.maximum(found["p_value"], found["p_matched"].fillna(found["p_value"]))
    rows = found.assign(p=p, explained=found["explained_by"].fillna("") != "")
    rows = rows[rows["explained"] == rows.groupby("feature")["explained"].transform("min")]
    rows = rows[rows["p"] <= EQUALLY_STRONG * rows.groupby("feature")["p"].transform("min")]
    rows = rows.sort_values(["feature", "n_term", "p"], kind="stable").drop_duplicates("feature")
    return rows.drop(columns=["p", "explained"])


def short_names(named: pd.DataFrame) -> list[str]:
    """The terms' names: without the id that makes a database's term distinct, and cut at a space."""
    return [_short(str(term), str(key)) for term, key in zip(named["term"], named["term_id"], strict=True)]


def _short(term: str, key: str) -> str:
    name = term.removesuffix(f" ({key})")
    if len(name) <= LONGEST:
        return name
    return name[: LONGEST - 1].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"


def agreeing_sources(found: pd.DataFrame, named: pd.DataFrame, contains: Contains) -> list[str]:
    """For each row of `named`, the independent sources that agree with it, comma-separated.

    A source agrees when one of its found terms shares at least half of the genes that feature and named term share.
    """
    if named.empty:
        return []
    columns = list(contains)
    agree = np.zeros((len(named), len(columns)), dtype=bool)
    row = pd.Series(np.arange(len(named)), index=named["feature"])
    wanted = _by_gene(named).assign(row=lambda genes: genes["feature"].map(row))
    shared = _by_gene(found).merge(wanted[["feature", "gene", "row"]], on=["feature", "gene"])
    n_shared = shared.groupby(["row", "entry"]).size().reset_index(name="n")
    n_wanted = np.bincount(wanted["row"], minlength=len(named))[n_shared["row"]]
    enough = n_shared[n_shared["n"] >= SAME_GENES * n_wanted]
    agree[enough["row"], pd.Index(columns).get_indexer(found["collection"].iloc[enough["entry"]])] = True
    agree[np.arange(len(named)), pd.Index(columns).get_indexer(named["collection"])] = True
    patterns, which = np.unique(counted_once(agree, contains), axis=0, return_inverse=True)
    texts = [",".join(name for name, counts in zip(columns, pattern, strict=True) if counts) for pattern in patterns]
    return [texts[pattern] for pattern in which.ravel()]


def _by_gene(rows: pd.DataFrame) -> pd.DataFrame:
    """feature, gene, entry: one row per shared gene of each row; entry is the row's position."""
    genes = pd.DataFrame(
        {
            "feature": rows["feature"].to_numpy(np.int64),
            "gene": rows["genes"].fillna("").astype(str).str.split(",").to_numpy(object),
            "entry": np.arange(len(rows)),
        }
    ).explode("gene")
    return genes[genes["gene"].notna() & (genes["gene"] != "")]
