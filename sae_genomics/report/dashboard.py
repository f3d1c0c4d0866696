"""dashboard.html: every feature of every layer in one file that opens without a network.

The page has numbers over all features (`columns`), which the list shows, and whatever the panels keep of each feature
(dashboard_panel.py). How they stand in the page: dashboard_page.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.artifacts import Inference
from sae_genomics.atomic import atomic_path
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.dashboard_arrays import shortened
from sae_genomics.report.dashboard_packing import Array, Coded
from sae_genomics.report.dashboard_page import assemble
from sae_genomics.report.dashboard_panel import Panel, PanelLayer

_NUMBERS = ("firing_rate", "specificity")
_ROUNDED = ("heldout_firing_rate", "mean_activation", "max_activation")  # nothing is sorted by these


class Dashboard:
    """Takes layers one after the other, keeps only what the page shows of them, and writes the page."""

    def __init__(self, panels: list[Panel], inference: Mapping[str, Inference] | None = None):
        """inference: what the tables of the run are about; those of layers come with them."""
        self.panels = panels
        self._inference: dict[str, Inference] = dict(inference or {})
        self._columns: dict[str, list[Array]] = {}
        self._layers: list[int] = []

    def add(self, results: LayerResults) -> None:
        """Add a layer; one without features is passed over."""
        features = results.table("features")
        if features is None:
            return
        features = features.sort_values("feature", kind="stable").reset_index(drop=True)
        rows = pd.Series(np.arange(len(features)), index=features["feature"].to_numpy())
        before = len(self._layers)
        self._layers.append(results.layer)
        try:
            self._add_columns(results.layer, features)
            for panel in self.panels:
                panel.add(PanelLayer(results, features, rows, before, self._n_bytes))
        except Exception:
            self._take_back()
            raise
        self._inference = {**results.inference, **self._inference}

    def _take_back(self) -> None:
        """Forget a layer that was added in part: every list holds one entry per layer, or the page's columns disagree."""
        self._layers.pop()
        for parts in self._columns.values():
            del parts[len(self._layers) :]
        for panel in self.panels:
            panel.forget(len(self._layers))

    def _add_columns(self, layer: int, features: pd.DataFrame) -> None:
        columns: dict[str, Array] = {
            "layer": np.full(len(features), layer, np.uint16),
            "feature": features["feature"].to_numpy(np.uint32),
            "n_items": features["n_items"].to_numpy(np.uint32),
            **{name: features[name].to_numpy(np.float32) for name in _NUMBERS},
            **{name: shortened(features[name]) for name in _ROUNDED},
        }
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    @property
    def _n_bytes(self) -> int:
        own = sum(part.nbytes for parts in self._columns.values() for part in parts)
        return own + sum(panel.n_bytes for panel in self.panels)

    @property
    def n_features(self) -> int:
        return sum(len(part) for part in self._columns.get("feature", []))

    def write(self, path: Path, about: dict[str, Any]) -> None:
        """Write the page, atomically.

        about: what the page says of the run: `title`, `facts` (list of texts), `nouns` (name -> noun), `layers` (list of objects with
        layer, fvu, l0, n_features, and what the panels' scripts read), `headline` (one sentence), `notes` (list of sentences), `fdr`, and
        `files` (names of files beside the page that it links to).
        """
        blocks: dict[str, Array | Coded] = {
            f"columns.{name}": np.concatenate(parts) for name, parts in self._columns.items()
        }
        meta: dict[str, Any] = {
            "n_features": self.n_features,
            "layer_numbers": self._layers,
            "inference": {name: said.line() for name, said in self._inference.items()},
        }
        notes = list(about.get("notes", []))
        for panel in self.panels:
            blocks |= panel.blocks()
            meta |= panel.meta()
            notes += panel.notes()
        page = assemble(
            {**about, **meta, "notes": notes},
            blocks,
            [name for panel in self.panels for name in (*panel.more_scripts, panel.script)],
        )
        with atomic_path(path) as temporary:
            temporary.write_text(page, encoding="utf-8", newline="\n")
