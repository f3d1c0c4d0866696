"""A panel of the dashboard: what it keeps of every layer, and the script that shows it.

A panel is a Python file that fills arrays and a script of the same name (`script`) that reads them. In the script a call of
`addPanel` says which arrays there are, which columns the list gets, what the search finds, and what is shown of one feature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from sae_genomics.config import RunConfig
from sae_genomics.report.cells import CellSample
from sae_genomics.report.collect import LayerResults, RunResults
from sae_genomics.report.dashboard_arrays import Lists
from sae_genomics.report.dashboard_packing import Array, Coded, Steps

MOST_FEATURES = (60_000, 200_000)  # beyond these numbers of features fewer entries are kept of each


@dataclass
class PanelSettings:
    """What panels are made with."""

    config: RunConfig
    n_features: int
    """of all layers together, as far as known; decides how much is kept of each"""
    n_layers: int
    sample: CellSample | None = None
    run_results: RunResults = field(default_factory=RunResults)
    """tables of the run"""

    @property
    def of_log10q(self) -> Steps:
        """How log10 of a q-value is rounded: below validation.fdr it stays below it."""
        return Steps(0.01, border=math.log10(self.config.validation.fdr))

    def entries(self, most: int, *fewer: int) -> int:
        """How many entries per feature: fewer the more features there are, so that a browser opens the page at once."""
        size = sum(self.n_features > limit for limit in MOST_FEATURES)
        return min(most, fewer[size - 1]) if size else most


@dataclass
class PanelLayer:
    """One layer as a panel takes it."""

    results: LayerResults
    features: pd.DataFrame
    """rows of features.parquet by number"""
    rows: pd.Series
    """feature (index) -> its position in `features`"""
    n_layers_before: int
    n_bytes: int
    """of everything that earlier panels and layers keep"""

    def __len__(self) -> int:
        return len(self.features)


class Panel:
    """One panel. A subclass fills `columns` (one value per feature) and `lists` (entries of every feature) in `add`."""

    script: ClassVar[str]
    """its file in this folder"""
    more_scripts: ClassVar[tuple[str, ...]] = ()
    """files that its script needs, before it"""
    lists_of: ClassVar[tuple[str, ...]] = ()
    """prefixes of its lists' arrays"""

    def __init__(self, settings: PanelSettings):
        self.settings = settings
        self.columns: dict[str, list[Array]] = {}
        self.lists: dict[str, Lists] = {name: Lists() for name in self.lists_of}

    def add(self, layer: PanelLayer) -> None:
        """Take a layer: exactly one array per column, and one call of every list's `add`."""
        raise NotImplementedError

    def add_columns(self, columns: dict[str, Array]) -> None:
        """One value per feature, of a layer."""
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values)

    def forget(self, n_layers: int) -> None:
        """Keep the first n_layers alone: a later one was added in part."""
        for parts in self.columns.values():
            del parts[n_layers:]
        for each in self.lists.values():
            each.forget(n_layers)

    @property
    def n_bytes(self) -> int:
        columns = sum(part.nbytes for parts in self.columns.values() for part in parts)
        return columns + sum(each.n_bytes for each in self.lists.values())

    def blocks(self) -> dict[str, Array | Coded]:
        """Every array of the page, by name."""
        found: dict[str, Array | Coded] = {
            f"columns.{name}": np.concatenate(parts) for name, parts in self.columns.items()
        }
        for name, each in self.lists.items():
            found |= each.blocks(name)
        return found

    def meta(self) -> dict[str, Any]:
        """What its script reads by name beside the arrays, as JSON."""
        return {}

    def notes(self) -> list[str]:
        """What a reader must know of the page, such as what was left out."""
        return []
