"""The panel of gene sets that each feature's top genes match."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.report.dashboard_arrays import Names, empty, in_rows, log10, shortened
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings

_EMPTY = empty(("n_overlap", "n_term", "odds_ratio", "p_value", "q_value"), ("collection", "term", "genes"))


class TermsPanel(Panel):
    """Best gene sets by p, each with the genes that it shares with the feature's."""

    script = "dashboard_terms.js"
    lists_of = ("terms", "overlaps")

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self._terms, self._genes = Names(), Names()

    def add(self, layer: PanelLayer) -> None:
        terms, features = layer.results.table("terms"), layer.features["feature"]
        terms = _EMPTY if terms is None else terms
        best = terms.drop_duplicates("feature").set_index("feature")
        self.add_columns(
            {
                "term": self._terms.codes(features.map(_named(best))),
                "term_log10q": log10(features.map(best["q_value"])),
            }
        )
        entries, row = in_rows(terms, layer.rows, ["p_value"], self.settings.entries(8, 4, 2))
        self.lists["terms"].add(
            len(layer),
            row,
            {
                "term": self._terms.codes(_named(entries)),
                "overlap": np.minimum(entries["n_overlap"].to_numpy(), 65535).astype(np.uint16),
                "size": entries["n_term"].to_numpy(np.uint32),
                "odds": shortened(entries["odds_ratio"]),
                "log10q": shortened(log10(entries["q_value"])),
            },
        )
        genes = entries["genes"].fillna("").str.split(",").reset_index(drop=True)
        flat = genes.explode().dropna().astype(str).str.strip()
        flat = flat[flat != ""]
        self.lists["overlaps"].add(len(entries), flat.index.to_numpy(np.int64), {"gene": self._genes.codes(flat)})

    def meta(self) -> dict[str, Any]:
        names = [text.split("\t", 1) for text in self._terms.texts]
        return {
            "terms": [name for _, name in names],
            "term_collection": [collection for collection, _ in names],
            "term_genes": self._genes.texts,
        }


def _named(terms: pd.DataFrame) -> pd.Series:
    """Collection and term as one name: two collections may hold sets of the same name."""
    return terms["collection"].astype(str) + "\t" + terms["term"].astype(str)
