"""The panel of cells: those in which each feature is strongest, and where they lie on the embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.report.cells import top_cells
from sae_genomics.report.dashboard_arrays import log10, quantise
from sae_genomics.report.dashboard_packing import Array, Coded
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings

TARGET_BYTES = 25_000_000  # the page's size aimed at; tables come first, cells take what is left
MOST_CELLS, FEWEST_CELLS = 1000, 30  # cells kept per feature
_BYTES_PER_CELL = 3.2  # 3 before gzip and base64, which about cancel out


class ItemsPanel(Panel):
    """Cells of the sample. It comes last: it takes the room that the other panels leave."""

    script = "dashboard_items.js"

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self.sample = settings.sample
        self._of_layer: list[dict[str, Array]] = []
        self._without: list[int] = []
        self._most: list[int] = []

    def add(self, layer: PanelLayer) -> None:
        activations = layer.results.activations
        if activations is None or self.sample is None:
            self._keep({}, len(layer), 0)
            return
        feature_of_row = layer.features["feature"].to_numpy()
        n_firing = np.bincount(activations.indices, minlength=activations.shape[1])[feature_of_row]
        kept = self._shares(layer, n_firing)
        wanted = np.zeros(activations.shape[1], np.int64)
        wanted[feature_of_row] = kept
        top = top_cells(activations, wanted)
        largest = np.zeros(len(wanted), np.float32)
        filled = np.diff(top.feature_ptr) > 0
        largest[filled] = top.activation[top.feature_ptr[:-1][filled]]
        feature = np.repeat(np.arange(len(wanted)), np.diff(top.feature_ptr))
        level = np.ceil(255 * top.activation / np.maximum(largest[feature], np.finfo(np.float32).tiny))
        number = layer.results.layer
        arrays: dict[str, Array] = {
            f"cells.{number}.length": np.diff(top.feature_ptr)[feature_of_row].astype(np.uint16),
            f"cells.{number}.cell": top.cell.astype(np.uint16 if len(self.sample.rows) <= 65536 else np.uint32),
            f"cells.{number}.level": np.clip(level, 1, 255).astype(np.uint8),
            f"cells.{number}.largest": largest[feature_of_row],
            f"cells.{number}.firing": n_firing.astype(np.uint32),
        }
        self._keep(arrays, int(((kept == 0) & (n_firing > 0)).sum()), int(kept.max(initial=0)))

    def _keep(self, arrays: dict[str, Array], without: int, most: int) -> None:
        self._of_layer.append(arrays)
        self._without.append(without)
        self._most.append(most)

    def forget(self, n_layers: int) -> None:
        for parts in (self._of_layer, self._without, self._most):
            del parts[n_layers:]

    def _shares(self, layer: PanelLayer, n_firing: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Cells to keep of each feature within the layer's share of the page: the same cap for all where at least
        FEWEST_CELLS fit, else FEWEST_CELLS for the most interesting features and none for the rest."""
        n_layers = max(self.settings.n_layers, 1)
        tables = layer.n_bytes / (layer.n_layers_before + 1) * n_layers
        budget = int(max(TARGET_BYTES - tables, TARGET_BYTES / 8) / n_layers / _BYTES_PER_CELL)
        low, high = 0, MOST_CELLS
        while low < high:  # the largest cap whose total fits
            middle = (low + high + 1) // 2
            low, high = (middle, high) if np.minimum(n_firing, middle).sum() <= budget else (low, middle - 1)
        if low >= FEWEST_CELLS or np.minimum(n_firing, MOST_CELLS).sum() <= budget:
            return np.minimum(n_firing, low).astype(np.int64)
        kept = np.minimum(n_firing, FEWEST_CELLS).astype(np.int64)
        order = np.argsort(-_interest(layer), kind="stable")
        kept[order[np.cumsum(kept[order]) > budget]] = 0
        return kept

    def blocks(self) -> dict[str, Array | Coded]:
        found: dict[str, Array | Coded] = {name: values for each in self._of_layer for name, values in each.items()}
        if self.sample is None:
            return found
        found |= {"sample.label": self.sample.cell_type, "sample.heldout": self.sample.heldout.astype(np.uint8)}
        if self.sample.xy is not None and len(self.sample.rows):
            low, high = self.sample.xy.min(axis=0), self.sample.xy.max(axis=0)
            extent = float(max((high - low).max(), 1e-9))  # one scale for both axes keeps the shape
            scaled = (self.sample.xy - (low + high) / 2) / extent + 0.5
            found |= {f"sample.{axis}": quantise(scaled[:, column]) for column, axis in enumerate("xy")}
        return found

    def meta(self) -> dict[str, Any]:
        sample = self.sample
        return {
            "cells": {
                "ids": sample.cell_id if sample else [],
                "labels": sample.types if sample else [],
                "n_all": sample.n_all if sample else 0,
                "basis": sample.basis if sample else "",
                "without": sum(self._without),
                "most": max(self._most, default=0),
            }
        }

    def notes(self) -> list[str]:
        without = sum(self._without)
        if not without:
            return []
        return [
            f"The cells of {without:,} features were left out to keep this page small or are not there; the rest show at most "
            f"{max(self._most, default=0):,} cells each."
        ]


def _interest(layer: PanelLayer) -> npt.NDArray[np.float64]:
    """Larger for features a reader is likelier to open: known terms, clear labels, specific units."""
    typed = (layer.features["best_label_auroc"].fillna(0.5).to_numpy(float) - 0.5).clip(0)
    specific = layer.features["specificity"].fillna(0).to_numpy(float).clip(0)
    found = 2 * typed + specific / max(float(specific.max(initial=0)), 1e-9)
    terms = layer.results.table("terms")
    if terms is not None and len(terms):
        q_value = terms.groupby("feature")["q_matched"].min()
        found += np.clip(-log10(layer.features["feature"].map(q_value)).astype(float), 0, 10) / 10
    return np.nan_to_num(found)
