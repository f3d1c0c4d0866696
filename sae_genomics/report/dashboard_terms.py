"""The panel of evidence: the terms of every source that each feature's genes match, each beside what chance gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.report import term_links
from sae_genomics.report.dashboard_arrays import Names, empty, in_rows, log10
from sae_genomics.report.dashboard_names import FeatureNames, term_key
from sae_genomics.report.dashboard_packing import Array, Coded, Logs
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings
from sae_genomics.report.evidence import by_source, in_order

TARGET_BYTES = 11_500_000  # of all terms of the page
MOST_TERMS, FEWEST_TERMS = 40, 2  # kept per feature
_BYTES_PER_TERM = 26  # packed, with its genes
_COUNTS = ("n_overlap", "n_term", "n_top", "n_background")
_ODDS = (
    "odds_ratio",
    "odds_ratio_low",
)  # the interval is symmetric on the scale of logarithms, so these give its upper end
_TESTS = ("p_value", "q_value", "q_matched", "q_source_matched")
_EMPTY = empty(
    (*_COUNTS, *_ODDS, "odds_ratio_high", *_TESTS), ("collection", "term", "term_id", "explained_by", "genes")
)


class TermsPanel(Panel):
    """The best terms of each source, with the genes that they share with the feature's."""

    script = "dashboard_terms.js"
    more_scripts = ("dashboard_sources.js", "dashboard_evidence.js", "dashboard_names.js")
    lists_of = ("terms", "overlaps", "shared")

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self._terms, self._genes, self._explaining = Names(), Names(), Names()
        self._named = FeatureNames()
        self._nulls: list[list[dict[str, Any]]] = []
        self._most: list[int] = []
        odds = dict.fromkeys(("odds", "odds_low", "expected"), Logs(250))
        q = dict.fromkeys(("log10q", "log10q_matched", "log10q_source"), settings.of_log10q)
        self.lists["terms"].encodings = {**odds, **q}

    def add(self, layer: PanelLayer) -> None:
        terms, features = layer.results.table("terms"), layer.features["feature"]
        terms = _EMPTY if terms is None else terms
        best = terms.sort_values(["feature", "q_matched", "p_value"], kind="stable").drop_duplicates("feature")
        best = best.set_index("feature")
        self.add_columns(
            {
                "term": self._terms.codes(features.map(term_key(best))),
                "term_log10q": log10(features.map(best["q_matched"])),
                **self._named.columns(layer.results.table("names"), features, self._terms),
            }
        )
        ordered = in_order(terms, self.settings.config.validation.fdr)
        self._most.append(self._room(ordered["order"].to_numpy(np.int64)))
        entries, row = in_rows(ordered[ordered["order"] < self._most[-1]], layer.rows, ["order"])
        expected = entries["n_top"].astype(float) * entries["n_term"] / entries["n_background"]
        numbers: dict[str, Array] = {
            "expected": expected.to_numpy(np.float64),
            **{short: entries[name].to_numpy(np.float64) for short, name in zip(("odds", "odds_low"), _ODDS, strict=True)},
"log10q": log10(entries["q_value"]), "log10q_matched": log10(entries["q_matched"]),
            "log10q_source": self._alone(entries),
        }  # fmt: skip
        self.lists["terms"].add(
            len(layer),
            row,
            {
                "term": self._terms.codes(term_key(entries)),
                "overlap": np.minimum(entries["n_overlap"].to_numpy(), 65535).astype(np.uint16),
                "size": entries["n_term"].to_numpy(np.uint32),
                "explained": self._explaining.codes(entries["explained_by"].replace("", None)),
                **numbers,
            },
        )
        self._add_genes(len(layer), entries["genes"], row)
        self._nulls.append(by_source(layer.results.table("annotation_nulls")))

    def _alone(self, entries: pd.DataFrame) -> Array:
        """log10 of q among the terms of the source alone, where that decides otherwise than q among all; else NaN."""
        fdr = self.settings.config.validation.fdr
        alone, headline = entries["q_source_matched"].astype(float), entries["q_matched"].astype(float)
        return log10(alone.where((alone < fdr) != (headline < fdr)))

    def _room(self, order: npt.NDArray[np.int64]) -> int:
        """The most terms per feature that keep the layer within its share of the page. order: of each term in its feature."""
        budget = TARGET_BYTES / max(self.settings.n_layers, 1) / _BYTES_PER_TERM
        total = np.cumsum(np.bincount(order, minlength=MOST_TERMS))
        return int(np.clip(np.searchsorted(total, budget, side="right"), FEWEST_TERMS, MOST_TERMS))

    def _add_genes(self, n_features: int, genes: pd.Series, row: npt.NDArray[np.int64]) -> None:
        """The genes of each term as positions in a list of its feature's: most of them stand in several terms."""
        n_listed = self.settings.entries(30, 6, 6)
        flat = genes.fillna("").astype(str).str.split(",").reset_index(drop=True).str[:n_listed].explode()
        flat = flat.dropna().str.strip()
        flat = flat[flat != ""]
        entry, code = flat.index.to_numpy(np.int64), self._genes.codes(flat).astype(np.int64)
        _, first, which = np.unique((row[entry] << 32) + code, return_index=True, return_inverse=True)
        by_appearance = np.argsort(first, kind="stable")
        number = np.empty(len(first), np.int64)
        number[by_appearance] = np.arange(len(first))
        row_of = row[entry[first[by_appearance]]]
        start = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=n_features))])
        position = number[which.ravel()] - start[row[entry]]
        self.lists["shared"].add(n_features, row_of, {"gene": code[first[by_appearance]].astype(np.int32)})
        self.lists["overlaps"].add(len(genes), entry, {"position": position.astype(np.uint16)})

    def forget(self, n_layers: int) -> None:
        super().forget(n_layers)
        del self._nulls[n_layers:], self._most[n_layers:]

    def blocks(self) -> dict[str, Array | Coded]:
        known = [text.split("\t") for text in self._terms.texts]
        sources = self._sources()
        kinds = [term_links.KINDS.index(term_links.kind_of(source, term_id)) for source, term_id, _ in known]
        of_terms: dict[str, Array | Coded] = {
            "sets.source": np.array([sources.index(source) for source, _, _ in known], np.uint8),
            "sets.kind": np.array(kinds, np.uint8),
        }
        return super().blocks() | of_terms

    def _sources(self) -> list[str]:
        return list(dict.fromkeys(text.split("\t", 1)[0] for text in self._terms.texts))

    def meta(self) -> dict[str, Any]:
        known = [text.split("\t") for text in self._terms.texts]
        sources = self._sources()
        return {
            **self._named.meta(),
            "terms": [name for _, _, name in known],
            "term_ids": [term_id if term_id != name else "" for _, term_id, name in known],
            "term_genes": self._genes.texts,
            "explaining": self._explaining.texts,
            "sources": sources,
            "source_nulls": self._nulls,
            "kinds": sorted({term_links.kind_of(source, term_id) for source, term_id, _ in known}),
            "kind_names": list(term_links.KINDS),
            "term_links": term_links.of_terms(sources),
        }

    def notes(self) -> list[str]:
        most = min(self._most, default=MOST_TERMS)
        if most == MOST_TERMS:
            return []
        return [
            f"Of each feature at most {most} terms are shown, the best of each source first, to keep this page small; annotations.tsv has all."
        ]
