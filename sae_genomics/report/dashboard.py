"""dashboard.html: every feature of every layer in one file that opens without a network.

What the page shows of a run: columns of numbers over all features (`columns`), lists of entries with the number of each
feature's (`genes`, `types`, `terms`, and a term's shared genes, `overlaps`) and, per layer, the cells in which each
feature is strongest (`cells`, among those of `sample`). How they stand in the page: dashboard_page.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_CELL_TYPES, FEATURE_TERMS, FEATURES, Inference
from sae_genomics.atomic import atomic_path
from sae_genomics.report.cells import CellSample, top_cells
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.dashboard_page import assemble
from sae_genomics.report.groups import groups_of_types

TARGET_BYTES = 25_000_000  # the page's size aimed at; tables come first, cells take what is left
MOST_CELLS, FEWEST_CELLS = 1000, 30  # cells kept a feature
_BYTES_A_CELL = 3.2  # 3 before gzip and base64, which about cancel out
MATCHING_AUROC = 0.7  # a search for a cell type finds features that reach this for it
LOWEST_LOG = -320.0


@dataclass
class Limits:
    """Entries kept a feature: genes a ranking, cell types, terms."""

    genes: int
    types: int
    terms: int


def limits_for(n_features: int, n_genes: int) -> Limits:
    """Fewer entries a feature the more features there are, so that the page stays one that a browser opens at once."""
    if n_features <= 150_000:
        return Limits(n_genes, 8, 8)
    if n_features <= 300_000:
        return Limits(min(n_genes, 6), 4, 4)
    return Limits(min(n_genes, 4), 2, 2)


class Names:
    """Numbers texts in the order they come."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def codes(self, column: pd.Series) -> npt.NDArray[np.int64]:
        """Number of each text, -1 for null. int64 [rows]."""
        local, uniques = pd.factorize(column, use_na_sentinel=True)
        known = np.array([self._place(str(text)) for text in uniques] + [-1], dtype=np.int64)
        return known[local]

    def _place(self, text: str) -> int:
        place = self._places.setdefault(text, len(self.texts))
        if place == len(self.texts):
            self.texts.append(text)
        return place


@dataclass
class _Ragged:
    lengths: list[npt.NDArray[np.int64]] = field(default_factory=list)
    columns: dict[str, list[npt.NDArray[Any]]] = field(default_factory=dict)

    def add(self, n_features: int, place: npt.NDArray[np.int64], columns: dict[str, npt.NDArray[Any]]) -> None:
        """Rows sorted by `place`, the feature's position in its layer."""
        self.lengths.append(np.bincount(place, minlength=n_features))
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values)

    def blocks(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        lengths = np.concatenate(self.lengths) if self.lengths else np.zeros(0, np.int64)
        found: dict[str, npt.NDArray[Any]] = {f"{prefix}.length": lengths.astype(np.uint16)}
        for name, parts in self.columns.items():
            found[f"{prefix}.{name}"] = np.concatenate(parts)
        return found


class Dashboard:
    """Takes layers one after the other, keeps only what the page shows of them, and writes the page.

    n_features: of all layers together, as far as known; decides how much is kept of each.
    """

    def __init__(self, n_features: int, n_layers: int, n_genes: int, fdr: float, sample: CellSample | None):
        self.limits = limits_for(n_features, n_genes)
        self.fdr, self.sample = fdr, sample
        self._n_layers = max(n_layers, 1)
        self._genes, self._symbols, self._types, self._terms, self._collections = (
            Names(), Names(), Names(), Names(), Names(),
        )  # fmt: skip
        self._gene_symbol: dict[int, int] = {}
        self._term_collection: dict[int, int] = {}
        self._type_groups: dict[str, int] = {}
        self._inference: dict[str, Inference] = {}
        self._columns: dict[str, list[npt.NDArray[Any]]] = {}
        self._ragged = {name: _Ragged() for name in ("genes", "types", "terms")}
        self._overlaps = _Ragged()
        self._cells: dict[str, npt.NDArray[Any]] = {}
        self._without_cells = 0
        self._layers: list[int] = []
        self._most_cells: list[int] = []

    def add(self, results: LayerResults, activations: csr_matrix | None) -> None:
        """Add a layer. activations: float32 [sampled cells, d_sae], maximum a cell; None where there are none."""
        if results.features is None:
            return
        table = results.features.sort_values("feature", kind="stable").reset_index(drop=True)
        places = pd.Series(np.arange(len(table)), index=table["feature"].to_numpy())
        self._layers.append(results.layer)
        try:
            self._add_columns(results, table)
            self._add_genes(results.genes, places)
            self._add_types(results.cell_types, places)
            self._add_terms(results.terms, places)
            self._add_cells(results, table, activations)
            self._inference = {**results.inference, **self._inference}
        except Exception:
            self._take_back()
            raise

    def _take_back(self) -> None:
        """Forget a layer that was added in part: every list holds one entry a layer, or the page's columns disagree."""
        layer = self._layers.pop()
        ragged = (*self._ragged.values(), self._overlaps)
        columns = [*self._columns.values(), *(part for each in ragged for part in each.columns.values())]
        for parts in (*columns, *(each.lengths for each in ragged)):
            del parts[len(self._layers) :]
        for name in [name for name in self._cells if name.startswith(f"cells.{layer}.")]:
            del self._cells[name]

    def _add_columns(self, results: LayerResults, table: pd.DataFrame) -> None:
        terms = results.terms.drop_duplicates("feature").set_index("feature") if results.terms is not None else None
        term_q = table["feature"].map(terms["q_value"]) if terms is not None else pd.Series(np.nan, table.index)
        term = table["feature"].map(_named(terms)) if terms is not None else pd.Series(None, table.index, dtype=object)
        columns: dict[str, npt.NDArray[Any]] = {
            "layer": np.full(len(table), results.layer, np.uint16),
            "feature": table["feature"].to_numpy(np.uint32),
            "top_gene": self._symbols.codes(table["top_gene"]).astype(np.int32),
            "type": self._types.codes(table["best_cell_type"]).astype(np.int32),
            "type_log10q": log10(table["best_cell_type_q_value"]),
            "term": self._terms.codes(term).astype(np.int32),
            "term_log10q": log10(term_q),
            "auroc": table["best_cell_type_auroc"].to_numpy(np.float32),
            "n_cells": table["n_cells"].to_numpy(np.uint32),
        }
        for name in ("firing_rate", "heldout_firing_rate", "mean_activation", "max_activation", "specificity"):
            columns[name] = table[name].to_numpy(np.float32)
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def _add_genes(self, genes: pd.DataFrame | None, places: pd.Series) -> None:
        if genes is None:
            genes = _EMPTY_GENES
        near = (genes["rank_specificity"] <= self.limits.genes) | (genes["rank_score"] <= self.limits.genes)
        rows, place = _placed(genes[near], places, ["rank_specificity"])
        code = self._genes.codes(rows["gene_id"])
        symbol = self._symbols.codes(rows["gene_symbol"])
        self._gene_symbol.update(zip(code.tolist(), symbol.tolist(), strict=True))
        self._ragged["genes"].add(
            len(places),
            place,
            {
                "gene": code.astype(np.int32),
                "score": shortened(rows["score"]),
                "specificity": shortened(rows["specificity"]),
                "rate": quantise(rows["firing_rate"]),
                "rank_score": np.minimum(rows["rank_score"].to_numpy(), 255).astype(np.uint8),
                # A gene seen in too few tokens has no specificity, and comes last.
                "rank_specificity": rows["rank_specificity"].fillna(255).clip(upper=255).astype(np.uint8).to_numpy(),
            },
        )

    def _add_types(self, types: pd.DataFrame | None, places: pd.Series) -> None:
        self._type_groups |= groups_of_types(types)
        if types is None:
            types = _EMPTY_TYPES
        rows = types.assign(order=-types["auroc"].astype(float).fillna(-1.0))
        rows, place = _placed(rows, places, ["order"], self.limits.types)
        self._ragged["types"].add(
            len(places),
            place,
            {
                "type": self._types.codes(rows["cell_type"]).astype(np.int32),
                "auroc": rows["auroc"].to_numpy(np.float32),
                "effect": shortened(rows["effect_size"]),
                "log10q": shortened(log10(rows["q_value"])),
                "n_cells": rows["n_cells"].to_numpy(np.uint32),
            },
        )

    def _add_terms(self, terms: pd.DataFrame | None, places: pd.Series) -> None:
        if terms is None:
            terms = _EMPTY_TERMS
        rows, place = _placed(terms, places, ["p_value"], self.limits.terms)
        code = self._terms.codes(_named(rows))
        collection = self._collections.codes(rows["collection"])
        self._term_collection.update(zip(code.tolist(), collection.tolist(), strict=True))
        self._ragged["terms"].add(
            len(places),
            place,
            {
                "term": code.astype(np.int32),
                "overlap": np.minimum(rows["n_overlap"].to_numpy(), 65535).astype(np.uint16),
                "size": rows["n_term"].to_numpy(np.uint32),
                "odds": shortened(rows["odds_ratio"]),
                "log10q": shortened(log10(rows["q_value"])),
            },
        )
        lists = rows["genes"].fillna("").str.split(",").reset_index(drop=True)
        flat = lists.explode().dropna().astype(str).str.strip()
        flat = flat[flat != ""]
        self._overlaps.add(
            len(rows), flat.index.to_numpy(np.int64), {"gene": self._symbols.codes(flat).astype(np.int32)}
        )

    def _add_cells(self, results: LayerResults, table: pd.DataFrame, activations: csr_matrix | None) -> None:
        if activations is None or self.sample is None:
            self._without_cells += len(table)
            return
        n_firing = np.bincount(activations.indices, minlength=activations.shape[1])[table["feature"].to_numpy()]
        kept = self._shares(n_firing, _interest(results, table))
        wanted = np.zeros(activations.shape[1], np.int64)
        wanted[table["feature"].to_numpy()] = kept
        top = top_cells(activations, wanted)
        largest = np.zeros(len(wanted), np.float32)
        filled = np.diff(top.feature_ptr) > 0
        largest[filled] = top.activation[top.feature_ptr[:-1][filled]]
        feature = np.repeat(np.arange(len(wanted)), np.diff(top.feature_ptr))
        level = np.ceil(255 * top.activation / np.maximum(largest[feature], np.finfo(np.float32).tiny))
        number = results.layer
        self._cells |= {
            f"cells.{number}.length": np.diff(top.feature_ptr)[table["feature"].to_numpy()].astype(np.uint16),
            f"cells.{number}.cell": top.cell.astype(np.uint16 if len(self.sample.rows) <= 65536 else np.uint32),
            f"cells.{number}.level": np.clip(level, 1, 255).astype(np.uint8),
            f"cells.{number}.largest": largest[table["feature"].to_numpy()],
            f"cells.{number}.firing": n_firing.astype(np.uint32),
        }
        self._without_cells += int(((kept == 0) & (n_firing > 0)).sum())
        self._most_cells.append(int(kept.max(initial=0)))

    def _shares(self, n_firing: npt.NDArray[np.int64], interest: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Cells to keep of each feature within the layer's share of the page: the same cap for all where at least
        FEWEST_CELLS fit, else FEWEST_CELLS for the most interesting features and none for the rest."""
        so_far = sum(len(part) * part.itemsize for parts in self._columns.values() for part in parts)
        so_far += sum(
            part.nbytes
            for each in (*self._ragged.values(), self._overlaps)
            for parts in each.columns.values()
            for part in parts
        )
        tables = so_far / len(self._layers) * self._n_layers
        budget = int(max(TARGET_BYTES - tables, TARGET_BYTES / 8) / self._n_layers / _BYTES_A_CELL)
        low, high = 0, MOST_CELLS
        while low < high:  # the largest cap whose total fits
            middle = (low + high + 1) // 2
            low, high = (middle, high) if np.minimum(n_firing, middle).sum() <= budget else (low, middle - 1)
        if low >= FEWEST_CELLS or np.minimum(n_firing, MOST_CELLS).sum() <= budget:
            return np.minimum(n_firing, low).astype(np.int64)
        kept = np.minimum(n_firing, FEWEST_CELLS).astype(np.int64)
        order = np.argsort(-interest, kind="stable")
        kept[order[np.cumsum(kept[order]) > budget]] = 0
        return kept

    @property
    def n_features(self) -> int:
        return sum(len(part) for part in self._columns.get("feature", []))

    def write(self, path: Path, about: dict[str, Any]) -> None:
        """Write the page, atomically.

        about: what the page says of the run: `title`, `facts` (list of name, value), `layers` (list of objects with layer,
        fvu, l0, n_features, headline, beside, and sources: see `annotation.Annotation.facts`), `above_chance` (one sentence), `notes`
        (list of sentences).
        """
        blocks: dict[str, npt.NDArray[Any]] = {
            f"columns.{name}": np.concatenate(parts) for name, parts in self._columns.items()
        }
        for name, ragged in self._ragged.items():
            blocks |= ragged.blocks(name)
        blocks |= self._overlaps.blocks("overlaps")
        blocks |= self._cells | self._sample_blocks()
        page = assemble({**about, **self._meta()}, blocks)
        with atomic_path(path) as temporary:
            temporary.write_text(page, encoding="utf-8", newline="\n")

    def _meta(self) -> dict[str, Any]:
        symbols = [self._gene_symbol.get(place, -1) for place in range(len(self._genes.texts))]
        sample = self.sample
        return {
            "n_features": self.n_features,
            "fdr": self.fdr,
            "matching_auroc": MATCHING_AUROC,
            "genes_listed": self.limits.genes,
            "layer_numbers": self._layers,
            "symbols": self._symbols.texts,
            "gene_ids": self._genes.texts,
            "gene_symbol": symbols,
            "types": self._types.texts,
            "type_groups": [self._type_groups.get(name) for name in self._types.texts] if self._type_groups else None,
            "inference": {
                Path(table.file).stem: self._inference[table.file].line()
                for table in (FEATURES, FEATURE_CELL_TYPES, FEATURE_TERMS, ANNOTATION_NULLS)
                if table.file in self._inference
            },
            "terms": [text.split("\t", 1)[1] for text in self._terms.texts],
            "term_collection": [self._collections.texts[place] for place in self._collection_places()],
            "cells": {
                "ids": sample.cell_id if sample else [],
                "types": sample.types if sample else [],
                "n_all": sample.n_all if sample else 0,
                "basis": sample.basis if sample else "",
                "without": self._without_cells,
                "most": max(self._most_cells, default=0),
            },
        }

    def _collection_places(self) -> list[int]:
        places = []
        for place, text in enumerate(self._terms.texts):
            if place not in self._term_collection:
                self._term_collection[place] = self._collections._place(text.split("\t", 1)[0])
            places.append(self._term_collection[place])
        return places

    def _sample_blocks(self) -> dict[str, npt.NDArray[Any]]:
        if self.sample is None:
            return {}
        found: dict[str, npt.NDArray[Any]] = {
            "sample.type": self.sample.cell_type,
            "sample.heldout": self.sample.heldout.astype(np.uint8),
        }
        if self.sample.xy is not None and len(self.sample.rows):
            low, high = self.sample.xy.min(axis=0), self.sample.xy.max(axis=0)
            extent = float(max((high - low).max(), 1e-9))  # one scale for both axes keeps the shape
            scaled = (self.sample.xy - (low + high) / 2) / extent + 0.5
            found |= {f"sample.{axis}": quantise(scaled[:, place]) for place, axis in enumerate("xy")}
        return found


_EMPTY_GENES = pd.DataFrame(
    {
        name: pd.Series(dtype=float)
        for name in ("feature", "score", "specificity", "firing_rate", "rank_score", "rank_specificity")
    }
    | {name: pd.Series(dtype=object) for name in ("gene_id", "gene_symbol")}
)
_EMPTY_TYPES = pd.DataFrame(
    {name: pd.Series(dtype=float) for name in ("feature", "auroc", "effect_size", "q_value", "n_cells")}
    | {"cell_type": pd.Series(dtype=object)}
)
_EMPTY_TERMS = pd.DataFrame(
    {name: pd.Series(dtype=float) for name in ("feature", "n_overlap", "n_term", "odds_ratio", "p_value", "q_value")}
    | {name: pd.Series(dtype=object) for name in ("collection", "term", "genes")}
)


def _named(terms: pd.DataFrame) -> pd.Series:
    """Collection and term as one name: two collections may hold sets of the same name."""
    return terms["collection"].astype(str) + "\t" + terms["term"].astype(str)


def _placed(
    frame: pd.DataFrame, places: pd.Series, by: list[str], n_kept: int | None = None
) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Rows of known features sorted by feature and `by`, the first n_kept of each, and the features' positions."""
    frame = frame[frame["feature"].isin(places.index)]
    frame = frame.sort_values(["feature", *by], kind="stable")
    if n_kept is not None:
        frame = frame[frame.groupby("feature").cumcount() < n_kept]
    return frame, places.reindex(frame["feature"].to_numpy()).to_numpy(np.int64)


def _interest(results: LayerResults, table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Larger for features a reader is likelier to open: known terms, clear cell types, specific genes."""
    typed = (table["best_cell_type_auroc"].fillna(0.5).to_numpy(float) - 0.5).clip(0)
    specific = table["specificity"].fillna(0).to_numpy(float).clip(0)
    found = 2 * typed + specific / max(float(specific.max(initial=0)), 1e-9)
    if results.terms is not None and len(results.terms):
        q_value = results.terms.groupby("feature")["q_value"].min()
        found += np.clip(-log10(table["feature"].map(q_value)).astype(float), 0, 10) / 10
    return np.nan_to_num(found)


def shortened(values: pd.Series | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """float32 with 12 of its 23 fraction bits: three digits are shown, and zeros at the end compress well."""
    exact = np.asarray(values, np.float64).astype(np.float32)
    bits = exact.view(np.uint32)
    rounded = ((bits + np.uint32(0x400)) & np.uint32(0xFFFFF800)).view(np.float32)
    return np.where(np.isfinite(exact) & np.isfinite(rounded), rounded, exact)


def log10(values: pd.Series) -> npt.NDArray[np.float32]:
    """log10 as float32; LOWEST_LOG for 0, NaN stays."""
    numbers = np.asarray(values, np.float64)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log10(numbers), LOWEST_LOG).astype(np.float32)


def quantise(values: pd.Series | npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Numbers between 0 and 1 in 65535 steps."""
    return np.round(np.clip(np.nan_to_num(np.asarray(values, float)), 0, 1) * 65535).astype(np.uint16)
