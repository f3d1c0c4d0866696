"""The panel of strongest examples: windows of the proteins in which each feature is strongest, residue by residue."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts.window_text import split_units
from sae_genomics.report.dashboard_arrays import Names, empty, in_rows, shortened
from sae_genomics.report.dashboard_packing import Array
from sae_genomics.report.dashboard_panel import Panel, PanelLayer, PanelSettings

TARGET_BYTES = 10_000_000  # of all examples of the page
LONGEST = 255  # units of a window; its length is kept in one byte
_BYTES_PER_LETTER = 1.2  # one for the letter, one for its level: most levels are 0, and both are packed
_USUAL_LENGTH = 41
_ASCII = 128
_EMPTY = empty(
    ("rank", "max_activation", "position", "start"), ("item_id", "name", "residues", "activations", "concepts")
)


class ExamplesPanel(Panel):
    """At most associations.top_examples windows per feature; fewer where the page would grow too large."""

    script = "dashboard_examples.js"
    lists_of = ("examples", "windows")

    def __init__(self, settings: PanelSettings):
        super().__init__(settings)
        self._items, self._names, self._concepts = Names(), Names(), Names()
        self._units = Names()  # the letters of ASCII have their own numbers, so that windows of residues are plain text
        self._units.codes(pd.Series([chr(code) for code in range(_ASCII)]))
        room = TARGET_BYTES / (_USUAL_LENGTH * _BYTES_PER_LETTER) / max(settings.n_features, 1)
        self.n_listed = max(int(room), 1)
        self._most_features = int(TARGET_BYTES / (_USUAL_LENGTH * _BYTES_PER_LETTER) / max(settings.n_layers, 1))
        self._without: list[int] = []

    def add(self, layer: PanelLayer) -> None:
        examples = layer.results.table("examples")
        examples = _EMPTY if examples is None else examples
        n_before = examples["feature"].nunique()
        strongest = layer.features.nlargest(self._most_features, "max_activation")["feature"]
        entries, row = in_rows(examples[examples["feature"].isin(strongest)], layer.rows, ["rank"], self.n_listed)
        self._without.append(n_before - int(entries["feature"].nunique()))
        self.lists["examples"].add(
            len(layer),
            row,
            {
                "item": self._items.codes(entries["item_id"]),
                "name": self._names.codes(entries["name"]),
                "concepts": self._concepts.codes(entries["concepts"].replace("", None)),
                "largest": shortened(entries["max_activation"]),
                "position": entries["position"].to_numpy(np.uint32),
                "start": entries["start"].to_numpy(np.uint32),
            },
        )
        length, units, levels = _windows(entries)
        codes = self._units.codes(pd.Series(units, dtype=object))
        letters = codes.astype(np.uint8 if codes.max(initial=0) < 256 else np.int32)
        self.lists["windows"].add(
            len(entries), np.repeat(np.arange(len(entries)), length), {"letter": letters, "level": levels}
        )

    def forget(self, n_layers: int) -> None:
        super().forget(n_layers)
        del self._without[n_layers:]

    def meta(self) -> dict[str, Any]:
        return {
            "items": self._items.texts,
            "item_names": self._names.texts,
            "example_concepts": self._concepts.texts,
            "window_units": self._units.texts[_ASCII:],
        }

    def notes(self) -> list[str]:
        without = sum(self._without)
        return [f"The examples of {without:,} features were left out to keep this page small."] if without else []


def _windows(entries: pd.DataFrame) -> tuple[npt.NDArray[np.int64], list[str], Array]:
    """Length of each window, and of all windows one after the other the units' names and their levels, 0 to 255 of the largest."""
    values = [np.asarray(each, np.float32) for each in entries["activations"]]
    units = [split_units(text, len(each))[:LONGEST] for text, each in zip(entries["residues"], values, strict=True)]
    length = np.array([len(each) for each in units], dtype=np.int64)
    flat = np.concatenate([each[:LONGEST] for each in values]) if len(length) else np.zeros(0)
    largest = np.repeat(entries["max_activation"].to_numpy(np.float64), length)
    level = np.ceil(255 * np.nan_to_num(flat) / np.maximum(np.nan_to_num(largest), np.finfo(np.float32).tiny))
    return length, list(chain.from_iterable(units)), np.clip(level, 0, 255).astype(np.uint8)
