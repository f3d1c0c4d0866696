"""From what was measured to rows of tables: specificities, four p-values, q over all features tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts.causal import CAUSAL_CURVES, CAUSAL_DOSE, CAUSAL_FEATURES, CAUSAL_NULLS
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.causal.dose import Curve
from sae_genomics.causal.measure import Measured, Outcome
from sae_genomics.causal.nulls import NULLS, p_values
from sae_genomics.causal.over_items import over_groups
from sae_genomics.causal.specificity import specificity_of, standardised, typical_size

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STORED_TARGET_DRAWS = 99


@dataclass(frozen=True)
class Effect:
    """A feature's measured effects. group: int64 [items], of its items; None without groups. sampled: drawn at random."""

    measured: Measured
    group: Ints | None
    sampled: bool
    masked: bool


def empty_tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Of features, nulls, doses and curves, without rows."""
    tables = (CAUSAL_FEATURES, CAUSAL_NULLS, CAUSAL_DOSE, CAUSAL_CURVES)
    features, nulls, doses, curves = (table.schema.empty_table().to_pandas() for table in tables)
    return features, nulls, doses, curves


def effect_tables(effects: Sequence[Effect]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """causal_features and causal_nulls."""
    rows, draws = [], []
    for masked in (False, True):
        here = [effect for effect in effects if effect.masked == masked]
        for name in dict.fromkeys(outcome.name for effect in here for outcome in effect.measured.outcomes):
            found, drawn = _of_outcome(name, here)
            rows.append(found)
            draws.append(drawn)
    empty = empty_tables()
    features = pd.concat(rows, ignore_index=True) if rows else empty[0]
    nulls = pd.concat(draws, ignore_index=True) if draws else empty[1]
    return features, nulls


def _of_outcome(name: str, effects: Sequence[Effect]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of one outcome, masked or not: its s0 and its q are of all features tested."""
    pairs = [(effect, outcome) for effect in effects for outcome in effect.measured.outcomes if outcome.name == name]
    s0 = typical_size(_side_by_side([over_groups(o.draws["direction"], e.group) for e, o in pairs]))
    rows = pd.DataFrame([_row(effect, outcome, s0) for effect, outcome in pairs])
    drawn = {null: _drawn(null, pairs, s0) for null in NULLS}
    for null, values in drawn.items():
        rows[f"p_{null}"] = p_values(rows["specificity"].to_numpy(), values)
    tested = [f"p_{null}" for null in NULLS if name != "embedding" or null != "targets"]
    complete = rows[tested].notna().all(axis=1)
    rows["p_value"] = rows[tested].max(axis=1).where(complete)
    rows["q_value"] = benjamini_hochberg(rows["p_value"].to_numpy(np.float64))
    feature = rows["feature"].to_numpy()
    stored = [_null_rows(null, values, feature, name, effects[0].masked) for null, values in drawn.items()]
    return rows, pd.concat(stored, ignore_index=True)


def _side_by_side(parts: list[Floats]) -> Floats:
    """Columns of all parts, NaN below the shorter ones."""
    longest = max((len(part) for part in parts), default=0)
    return np.column_stack([np.vstack([part, np.full((longest - len(part), part.shape[1]), np.nan)]) for part in parts])


def _row(effect: Effect, outcome: Outcome, s0: float) -> dict[str, object]:
    d = outcome.d
    known = np.isfinite(d)
    found = specificity_of(over_groups(d, effect.group), s0)
    return {
        "feature": effect.measured.feature, "outcome": outcome.name, "masked": effect.masked, "n_items": int(known.sum()),
        "n_groups": None if effect.group is None else len(np.unique(effect.group[known])),
        "n_own": outcome.n_own,
        "effect_own": _mean(outcome.own[known], effect, known), "effect_matched": _mean(outcome.matched[known], effect, known),
        "specificity": found.value, "specificity_low": found.low, "specificity_high": found.high,
        "norm": _mean(effect.measured.norm[known], effect, known), "sampled": effect.sampled,
    }  # fmt: skip


def _mean(values: Floats, effect: Effect, known: npt.NDArray[np.bool_]) -> float:
    group = None if effect.group is None else effect.group[known]
    return float(over_groups(values, group).mean()) if len(values) else float("nan")


def _drawn(null: str, pairs: Sequence[tuple[Effect, Outcome]], s0: float) -> Floats:
    """Specificities of one null: float64 [features, draws], NaN where there are fewer."""
    parts = []
    for effect, outcome in pairs:
        draws = outcome.draws.get(null, np.empty((len(outcome.d), 0)))
        counts = np.isfinite(outcome.d)[:, None]  # a draw is of the items that the feature itself is measured in
        parts.append(standardised(over_groups(np.where(counts, draws, np.nan), effect.group), s0))
    longest = max(len(part) for part in parts)
    return np.array([np.append(part, np.full(longest - len(part), np.nan)) for part in parts])


def _null_rows(null: str, values: Floats, feature: Ints, outcome: str, masked: bool) -> pd.DataFrame:
    values = values[:, :STORED_TARGET_DRAWS] if null == "targets" else values
    row, draw = np.nonzero(np.isfinite(values))
    return pd.DataFrame({
        "feature": feature[row].astype(np.int32), "outcome": outcome, "masked": masked, "null": null,
        "draw": draw.astype(np.int32), "specificity": values[row, draw],
    })  # fmt: skip


def dose_tables(curves: Sequence[tuple[int, Curve, float, int]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """causal_dose and causal_curves. curves: feature, curve, gradient, items."""
    _, _, doses, shapes = empty_tables()
    rows = [
        pd.DataFrame({
            "feature": np.int32(feature), "dose": found.doses, "own": found.own, "matched": found.matched,
            "off_target": found.off_target, "stopped": found.stopped, "n_items": n_items,
        })
        for feature, found, _, n_items in curves
    ]  # fmt: skip
    of_curves = [
        {
            "feature": feature, "n_doses": len(found.doses), "monotonicity": found.monotonicity, "slope": found.slope,
            "gradient": gradient, "saturation": found.saturation, "stopped_above": found.stopped_side(above=True),
            "stopped_below": found.stopped_side(above=False),
        }
        for feature, found, gradient, _ in curves
    ]  # fmt: skip
    return pd.concat(rows, ignore_index=True) if rows else doses, pd.DataFrame(of_curves) if of_curves else shapes
