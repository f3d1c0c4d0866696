"""Units (features, genes, neurons) against annotated cell types, chosen on training cells, measured on held-out ones."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from sae_genomics.artifacts import CELL_TYPE_BASELINES, FEATURE_CELL_TYPES, OVER_CELLS, Inference
from sae_genomics.associations.by_group import Side, TypeTests, compare_by_group, constant_types
from sae_genomics.associations.cell_sample import CellSample
from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.intervals import auroc_interval
from sae_genomics.associations.mann_whitney import group_tests
from sae_genomics.associations.multiple_testing import benjamini_hochberg

CELLS, GROUPS, GROUP_MEANS = "cells", "groups", "group means"  # units of inference


@dataclass(frozen=True)
class Basis:
    """What the numbers of each type rest on, by the annotation alone; one entry per type.

    unit: CELLS; GROUPS, each group one AUROC; or GROUP_MEANS, each group one mean.
    n_groups: held-out groups that could be used; None where cells are the unit.
    untested: why there is no p-value; None where there is one.
    """

    unit: npt.NDArray[np.object_]
    n_groups: npt.NDArray[np.int64] | None
    untested: npt.NDArray[np.object_]

    def columns(self) -> dict[str, object]:
        """Columns of both tables, one row per type."""
        n_groups = pd.array([pd.NA] * len(self.unit) if self.n_groups is None else self.n_groups, dtype="Int64")
        return {"n_groups": n_groups, "unit_of_inference": self.unit, "untested": self.untested}


@dataclass(frozen=True)
class UnitTests:
    """Tests of every unit against every type. heldout: [units, types]; auroc_train: float64 [units, types]."""

    sample: CellSample
    heldout: TypeTests
    auroc_train: npt.NDArray[np.float64]
    basis: Basis


def compare_units(store: ColumnStore, sample: CellSample) -> UnitTests:
    """Every column of the store against every type: over cells, or over groups where the sample has them.

    store: [cells of the sample, units]; implicit zeros below every stored value.
    """
    heldout, train = [], []
    sides = _sides(sample)
    for _, rows in store.columns():
        first, last = rows[: sample.n_train], rows[sample.n_train :]
        over_cells = group_tests(first.tocsc(), sample.group[: sample.n_train], len(sample.types)).auroc
        if sides is None:
            train.append(over_cells)
            heldout.append(_over_cells(last, sample))
        else:
            by_group = compare_by_group(first, sides[0]).auroc
            train.append(np.where(np.isnan(by_group), over_cells, by_group))
            heldout.append(compare_by_group(last, sides[1]))
    joined = TypeTests(
        *(np.concatenate([getattr(part, field.name) for part in heldout]) for field in fields(TypeTests))
    )
    return UnitTests(sample, joined, np.concatenate(train), _basis(sample, None if sides is None else sides[1]))


def _sides(sample: CellSample) -> tuple[Side, Side] | None:
    """Training and held-out cells by group; None without groups."""
    if sample.donor is None:
        return None
    constant = constant_types(sample.group, sample.donor, len(sample.types))
    cut = sample.n_train
    return (
        Side(sample.group[:cut], sample.donor[:cut], constant),
        Side(sample.group[cut:], sample.donor[cut:], constant),
    )


def _over_cells(rows: sparse.csr_matrix, sample: CellSample) -> TypeTests:
    tests = group_tests(rows.tocsc(), sample.group[sample.n_train :], len(sample.types))
    size = heldout_sizes(sample)
    low, high = auroc_interval(tests.auroc, size, size.sum() - size)
    return TypeTests(tests.auroc, low, high, tests.p_value, tests.mean_in, tests.mean_out, tests.effect_size)


def _basis(sample: CellSample, side: Side | None) -> Basis:
    n_types = len(sample.types)
    if side is not None:
        unit = np.where(side.constant, GROUP_MEANS, GROUPS).astype(object)
        return Basis(unit, side.n_groups(), np.array(side.untested(), dtype=object))
    size = heldout_sizes(sample)
    few = (size < 2) | (size.sum() - size < 2)
    untested = np.full(n_types, None, dtype=object)
    untested[few] = "fewer than 2 held-out cells of the type, or of others"
    return Basis(np.full(n_types, CELLS, dtype=object), None, untested)


def inference(tests: UnitTests, group_key: str | None) -> Inference:
    """What the statistics of these tests are about, with n filled in. group_key: obs column of the groups."""
    size, basis = heldout_sizes(tests.sample), tests.basis
    if basis.n_groups is None:
        return Inference(
            OVER_CELLS.unit, f"{size.sum():,} held-out cells, of the type (n_cells) and others", OVER_CELLS.null
        )
    null = {
        GROUPS: "within every group the type's cells and others do not differ (mean AUROC 0.5; t-test over groups)",
        GROUP_MEANS: "groups with the type and groups without it do not differ (AUROC 0.5; Mann-Whitney over groups)",
    }
    low, high = basis.n_groups.min(), basis.n_groups.max()
    n = f"{low}" if low == high else f"{low} to {high}"
    return Inference(
        f"one held-out group of cells ({group_key})",
        f"{n} groups per type (n_groups), {size.sum():,} cells",
        "; ".join(null[unit] for unit in null if unit in basis.unit),
    )


def heldout_sizes(sample: CellSample) -> npt.NDArray[np.int64]:
    """Held-out cells of each type: int64 [types]."""
    return np.bincount(sample.group[sample.n_train :], minlength=len(sample.types))


def feature_cell_types(tests: UnitTests) -> pd.DataFrame:
    """The rows of feature_cell_types.parquet, by feature, then type.

    A type with too few held-out cells, or groups, keeps its row with NaN: no test was made, and it does not count among the
    tests of the q-values. `untested` says why.
    """
    sample, heldout = tests.sample, tests.heldout
    n_features, n_types = tests.auroc_train.shape
    size = heldout_sizes(sample)
    p = heldout.p_value.ravel()
    basis = pd.DataFrame(tests.basis.columns())
    return pd.DataFrame(
        {
            "feature": np.repeat(np.arange(n_features, dtype=np.int32), n_types),
            "cell_type": np.tile(np.array(sample.types, dtype=object), n_features),
            "n_cells": np.tile(size, n_features),
            "n_rest": np.tile(size.sum() - size, n_features),
            "mean_in": heldout.mean_in.ravel(),
            "mean_out": heldout.mean_out.ravel(),
            "auroc": heldout.auroc.ravel(),
            "auroc_low": heldout.auroc_low.ravel(),
            "auroc_high": heldout.auroc_high.ravel(),
            "auroc_train": tests.auroc_train.ravel(),
            "effect_size": heldout.effect_size.ravel(),
            "p_value": p,
            "q_value": benjamini_hochberg(p),
        }
    ).join(basis.iloc[np.tile(np.arange(n_types), n_features)].reset_index(drop=True))


def best_types(tests: UnitTests, q_value: npt.NDArray[np.float64]) -> pd.DataFrame:
    """Each unit's type with the highest training AUROC (the first of equals), one row per unit.

    q_value: float64 [units x types], as in feature_cell_types.
    Columns as in features.parquet. A unit without any difference between types on training cells has none. With groups, types that
    too few held-out groups have are left out, as long as there are others: the annotation alone decides that.
    """
    train = np.where(np.isnan(tests.auroc_train), -np.inf, tests.auroc_train)
    testable = pd.isna(tests.basis.untested)
    if tests.basis.n_groups is not None and testable.any():
        train[:, ~testable] = -np.inf
    best = train.argmax(axis=1)
    unit = np.arange(len(best))
    above_chance = train[unit, best] > 0.5
    types = np.array(tests.sample.types, dtype=object)
    return pd.DataFrame(
        {
            "best_cell_type": np.where(above_chance, types[best], None),
            "best_cell_type_auroc": np.where(above_chance, tests.heldout.auroc[unit, best], np.nan),
            "best_cell_type_q_value": np.where(above_chance, q_value.reshape(train.shape)[unit, best], np.nan),
        }
    )


def best_units(
    tests: UnitTests, kind: str, units: npt.NDArray[np.integer], names: npt.NDArray[np.object_]
) -> pd.DataFrame:
    """Each type's unit with the highest training AUROC: rows of cell_type_baselines.parquet.

    Types that cannot be told on training cells (fewer than two inside or outside) have no row.
    """
    train = np.where(np.isnan(tests.auroc_train), -np.inf, tests.auroc_train)
    if not len(train):
        return empty_baselines()
    best = train.argmax(axis=0)
    types = np.arange(train.shape[1])
    frame = pd.DataFrame(
        {
            "cell_type": np.array(tests.sample.types, dtype=object),
            "kind": kind,
            "unit": units[best].astype(np.int32),
            "name": names[best],
            "auroc_train": train[best, types],
            "auroc": tests.heldout.auroc[best, types],
            "auroc_low": tests.heldout.auroc_low[best, types],
            "auroc_high": tests.heldout.auroc_high[best, types],
            "n_cells": heldout_sizes(tests.sample),
            **tests.basis.columns(),
        }
    )
    return frame[np.isfinite(train[best, types])].reset_index(drop=True)


def empty_cell_types() -> pd.DataFrame:
    """feature_cell_types.parquet of a run without annotation."""
    return FEATURE_CELL_TYPES.schema.empty_table().to_pandas()


def empty_baselines() -> pd.DataFrame:
    """cell_type_baselines.parquet of a run without annotation."""
    return CELL_TYPE_BASELINES.schema.empty_table().to_pandas()
