"""report.md, strongest examples: where the best features are strongest, with the active residues marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts.window_text import split_units
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import block, count, decimal, details, escape, feature_link
from sae_genomics.report.wording import Wording

FEATURES_SHOWN, WINDOWS_SHOWN = 5, 3  # per layer, per feature
PIECES_AROUND = 10  # word pieces to either side of the maximum
STRONG = 0.5  # of the largest activation of the window


@dataclass(frozen=True)
class Shown:
    """The windows of one feature, and what it is said to be."""

    feature: int
    about: str
    windows: list[dict[Any, Any]]


def chosen(examples: pd.DataFrame, best: pd.DataFrame) -> list[Shown]:
    """The strongest windows of the first of the best features. best: see `best_features.by_concepts`."""
    found: list[Shown] = []
    by_feature = dict(list(examples[examples["rank"] <= WINDOWS_SHOWN].groupby("feature")))
    for row in best.to_dict("records"):
        own = by_feature.get(row["feature"])
        if own is not None and len(found) < FEATURES_SHOWN:
            about = f"{row['name'] or row['concept']} (F1 {decimal(row['f1_residue'])})" if row["known"] else ""
            found.append(Shown(int(row["feature"]), about, own.sort_values("rank").to_dict("records")))
    return found


def section(contents: Contents) -> str:
    """The section, with its title; empty without examples."""
    known = [(each.layer, each.parts.get("examples")) for each in contents.layers]
    layers = [(layer, shown) for layer, shown in known if shown]
    if not layers:
        return ""
    nouns = contents.wording.nouns
    text = (
        f"Where the first of the best features are strongest: the {WINDOWS_SHOWN} {nouns.items} with the largest activation, one window each. "
        f"`^` marks {nouns.tokens} with at least half of the window's largest activation, `.` those with less. The strongest examples of "
        "a feature show what drives it at its best, not what it does elsewhere."
    )
    parts = ["## Strongest examples", text]
    for index, (layer, shown) in enumerate(layers):
        body = "\n\n".join(_feature(layer, each, contents.dashboard, contents.wording) for each in shown)
        parts.append(
            f"### Layer {layer}: examples\n\n{body}" if index == 0 else details(f"Layer {layer}: examples", body)
        )
    return "\n\n".join(parts)


def _feature(layer: int, shown: Shown, dashboard: str, wording: Wording) -> str:
    about = f": {escape(shown.about)}" if shown.about else ""
    lines: list[str] = []
    for window in shown.windows:
        lines += [*([""] if lines else []), *window_lines(window, wording)]
    return f"Feature {feature_link(dashboard, layer, shown.feature)}{about}\n\n{block(lines)}"


def window_lines(window: dict[Any, Any], wording: Wording) -> list[str]:
    """What the window is, its residues, and the marks below them."""
    token = wording.nouns.token
    start, values = int(window["start"]), np.nan_to_num(np.asarray(window["activations"], np.float64))
    units = split_units(str(window["residues"]), len(values))
    if any(len(unit) > 1 for unit in units):
        start, units, values = _nearest(start, units, values, int(window["position"]))
    name = f" {window['name']}" if isinstance(window["name"], str) and window["name"] else ""
    concepts = f"; {window['concepts']}" if isinstance(window["concepts"], str) and window["concepts"] else ""
    largest = f"largest activation {decimal(window['max_activation'])} at {token} {count(window['position'])}"
    margin = " " * len(str(start))
    return [
        f"{window['item_id']}{name}, {largest}{concepts}",
        f"{start} {''.join(units)} {start + len(units) - 1}",
        f"{margin} {''.join(mark * len(unit) for mark, unit in zip(marks(values), units, strict=True))}".rstrip(),
    ]


def _nearest(
    start: int, units: list[str], values: npt.NDArray[np.float64], position: int
) -> tuple[int, list[str], npt.NDArray[np.float64]]:
    """What fits in a line: the units around the maximum."""
    first, stop = max(position - start - PIECES_AROUND, 0), position - start + PIECES_AROUND + 1
    return start + first, units[first:stop], values[first:stop]


def marks(activations: Any) -> str:
    """One sign per residue: `^` strong, `.` active, a space where it is not."""
    values = np.nan_to_num(np.asarray(activations, np.float64))
    largest = values.max(initial=0.0)
    if largest <= 0:
        return " " * len(values)
    return "".join(np.where(values >= STRONG * largest, "^", np.where(values > 0, ".", " ")))
