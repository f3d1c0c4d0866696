"""Which of a sweep's SAEs to take: those that no other beats at the same FVU.

    score = stability x n_terms

stability: share of features that a second seed finds again. n_terms: different terms that the features match on training cells.
One number alone misleads: a tiny SAE is stable and says nothing, a huge one finds many terms that another seed does not find.
A low score with a low FVU is no failure either, so that SAEs are compared with those that reproduce the activations as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SAME_FVU = 0.02


def rank(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`score` and `beaten_by` of each row.

    rows: with layer, fvu, stability and n_terms. beaten_by: SAEs of the same layer with a higher score whose FVU is lower, or higher by
    SAME_FVU at most; 0 for those to choose from. Both are None where one of the three numbers is missing.
    """
    names = ("layer", "fvu", "stability", "n_terms")
    values = {name: np.array([_number(row.get(name)) for row in rows], dtype=np.float64) for name in names}
    score = values["stability"] * values["n_terms"]
    known = np.isfinite(score) & np.isfinite(values["fvu"])
    same_layer = values["layer"][:, None] == values["layer"][None, :]
    as_good = values["fvu"][None, :] <= values["fvu"][:, None] + SAME_FVU
    with np.errstate(invalid="ignore"):
        beats = same_layer & as_good & (score[None, :] > score[:, None]) & known[None, :]
    return [
        {"score": round(float(one), 4), "beaten_by": int(count)} if is_known else {"score": None, "beaten_by": None}
        for one, count, is_known in zip(score, beats.sum(axis=1), known, strict=True)
    ]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def best_lines(rows: Sequence[Mapping[str, Any]], grid: Sequence[str]) -> list[str]:
    """One line per layer: its SAEs that none beats, by rising FVU."""
    lines = []
    for layer in sorted({row["layer"] for row in rows}):
        best = [row for row in rows if row["layer"] == layer and row.get("beaten_by") == 0]
        best.sort(key=lambda row: row["fvu"])
        said = "; ".join(
            f"{', '.join(f'{name} {row[name]}' for name in grid)} (FVU {row['fvu']:.3f}, {row['n_terms']} terms, "
            f"stability {row['stability']:.2f})"
            for row in best
        )
        if said:
            lines.append(f"layer {layer}, highest stability x terms at its FVU: {said}")
    return lines
