"""Features over layers, in the few numbers that text, figures and dashboard are made of."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from sae_genomics.config import RunConfig
from sae_genomics.report.collect import RunResults
from sae_genomics.report.markdown import is_number

FOLDER = "cross_layer"
STEPS = ("persistent", "split", "merged", "unit")
DIED, BORN = "died", "born"
_PARTNERS = 3  # of a feature, in each other layer


@dataclass(frozen=True)
class Passage:
    """From one layer to the next. share, ceiling, floor, untrained, relative: None where not known.

    left, right: word of `after` or `before` -> features of the first or the second layer.
    """

    first: int
    second: int
    share: float | None
    ceiling: float | None
    floor: float | None
    untrained: float | None
    relative: float | None
    n_features: int
    left: dict[str, int]
    right: dict[str, int]


def layers_of(results: RunResults) -> list[int]:
    """The layers that any of the tables knows, ascending."""
    known: set[int] = set()
    for name in ("fates", "module_summary", "modules", "variance", "novelty"):
        table = results.table(name)
        if table is not None and len(table):
            known |= set(table["layer"].astype(int))
    persistence = results.table("persistence")
    if persistence is not None:
        known |= set(persistence["layer_a"].astype(int)) | set(persistence["layer_b"].astype(int))
    return sorted(known)


def passages(results: RunResults) -> list[Passage]:
    """Every layer and the next one; without what is missing. Empty where neither shares nor fates are there."""
    persistence, fates = results.table("persistence"), results.table("fates")
    if (persistence is None or persistence.empty) and (fates is None or fates.empty):
        return []
    found = []
    for first, second in pairwise(layers_of(results)):
        row: dict[str, Any] = {}
        if persistence is not None:
            rows = persistence[(persistence["layer_a"] == first) & (persistence["layer_b"] == second)]
            row = {str(key): value for key, value in rows.iloc[0].items()} if len(rows) else {}
        left, right = _counts(fates, first, "after"), _counts(fates, second, "before")
        n = int(row["n_features"]) if is_number(row.get("n_features")) else sum(left.values())
        found.append(
            Passage(
                first, second, _known(row.get("share")), _known(row.get("ceiling")), _known(row.get("floor_permuted")),
                _known(row.get("floor_untrained")), _known(row.get("relative")), n, left, right,
            )
        )  # fmt: skip
    return found


def _known(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _counts(fates: pd.DataFrame | None, layer: int, column: str) -> dict[str, int]:
    if fates is None:
        return {}
    counts = fates.loc[fates["layer"] == layer, column].dropna().value_counts()
    return {str(name): int(number) for name, number in counts.items()}


def linked(path: Path, config: RunConfig) -> pd.DataFrame:
    """Of every feature its best linked partners in each other layer."""
    table = pq.read_table(path, filters=[("linked", "==", True)], partitioning=None).to_pandas()
    table = table.sort_values("correlation", ascending=False, kind="stable")
    near = pd.Series(False, index=table.index)
    for own, other in (("a", "b"), ("b", "a")):
        rank = table.groupby([f"layer_{own}", f"feature_{own}", f"layer_{other}"]).cumcount()
        near |= rank < _PARTNERS
    return table[near].reset_index(drop=True)


def above_null(results: RunResults) -> pd.DataFrame | None:
    """Rows of module_summary.parquet that are above chance, the surest first; None where the table is not there."""
    table = results.table("module_summary")
    if table is None:
        return None
    rows = table[table["above_null"].fillna(False).astype(bool)]
    return rows.sort_values(["layer", "module"], kind="stable", ignore_index=True)


def between_modules(results: RunResults) -> pd.DataFrame:
    """Pairs above chance between modules of a layer and of the next one: layer_a, module_a, layer_b, module_b, share of all their pairs."""
    columns = ["layer_a", "module_a", "layer_b", "module_b", "share"]
    pairs, members = results.table("coactivation"), results.table("modules")
    if pairs is None or members is None or members.empty or pairs.empty:
        return pd.DataFrame(columns=columns)
    pairs = pairs[pairs["layer_a"] != pairs["layer_b"]]
    for side in "ab":
        names = {"layer": f"layer_{side}", "feature": f"feature_{side}", "module": f"module_{side}"}
        pairs = pairs.merge(members[list(names)].rename(columns=names), on=[f"layer_{side}", f"feature_{side}"])
    counts = pairs.groupby(columns[:-1]).size().rename("n").reset_index()
    sizes = members.groupby(["layer", "module"]).size()
    for side in "ab":
        counts[f"size_{side}"] = [
            sizes[key] for key in zip(counts[f"layer_{side}"], counts[f"module_{side}"], strict=True)
        ]
    counts["share"] = counts["n"] / (counts["size_a"] * counts["size_b"])
    return counts[columns]


def module_name(row: Any, most_units: int = 3) -> str:
    """Name of a module: that of its features where two and a tenth of them have it, else its first units."""
    if row["name"] and row["n_named"] >= max(2, row["size"] / 10):
        return str(row["name"])
    units = [unit for unit in str(row["units"] or "").split(", ") if unit][:most_units]
    return ", ".join(units) or f"module {int(row['module'])}"
