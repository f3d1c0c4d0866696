"""Units (features, genes, neurons) against annotated cell types, chosen on training cells, measured on held-out ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts import CELL_TYPE_BASELINES, FEATURE_CELL_TYPES
from sae_genomics.associations.cell_sample import CellSample
from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.mann_whitney import GroupTests, group_tests
from sae_genomics.associations.multiple_testing import benjamini_hochberg


@dataclass(frozen=True)
class UnitTests:
    """Tests of every unit against every type. heldout: [units, types]; auroc_train: float64 [units, types]."""

    sample: CellSample
    heldout: GroupTests
    auroc_train: npt.NDArray[np.float64]


def compare_units(store: ColumnStore, sample: CellSample) -> UnitTests:
    """Every column of the store against every type.

    store: [cells of the sample, units]; implicit zeros below every stored value.
    """
    heldout, train = [], []
    n_types = len(sample.types)
    for _, rows in store.columns():
        train.append(group_tests(rows[: sample.n_train].tocsc(), sample.group[: sample.n_train], n_types).auroc)
        heldout.append(group_tests(rows[sample.n_train :].tocsc(), sample.group[sample.n_train :], n_types))
    names = ("auroc", "p_value", "mean_in", "mean_out", "effect_size")
    joined = GroupTests(*(np.concatenate([getattr(part, name) for part in heldout]) for name in names))
    return UnitTests(sample, joined, np.concatenate(train))


def feature_cell_types(tests: UnitTests) -> pd.DataFrame:
    """The rows of feature_cell_types.parquet, by feature, then type.

    A type with fewer than two held-out cells, inside or outside it, keeps its row with NaN: no test was made, and it
    does not count among the tests of the q-values.
    """
    sample, heldout = tests.sample, tests.heldout
    n_features, n_types = tests.auroc_train.shape
    size = np.bincount(sample.group[sample.n_train :], minlength=n_types)
    p = heldout.p_value.ravel()
    return pd.DataFrame(
        {
            "feature": np.repeat(np.arange(n_features, dtype=np.int32), n_types),
            "cell_type": np.tile(np.array(sample.types, dtype=object), n_features),
            "n_cells": np.tile(size, n_features),
            "n_rest": np.tile(size.sum() - size, n_features),
            "mean_in": heldout.mean_in.ravel(),
            "mean_out": heldout.mean_out.ravel(),
            "auroc": heldout.auroc.ravel(),
            "auroc_train": tests.auroc_train.ravel(),
            "effect_size": heldout.effect_size.ravel(),
            "p_value": p,
            "q_value": benjamini_hochberg(p),
        }
    )


def best_types(tests: UnitTests, q_value: npt.NDArray[np.float64]) -> pd.DataFrame:
    """Each unit's type with the highest training AUROC (the first of equals), one row a unit.

    q_value: float64 [units x types], as in feature_cell_types.
    Columns as in features.parquet. A unit without any difference between types on training cells has none.
    """
    train = np.where(np.isnan(tests.auroc_train), -np.inf, tests.auroc_train)
    best = train.argmax(axis=1)
    unit = np.arange(len(best))
    some = train[unit, best] > 0.5
    types = np.array(tests.sample.types, dtype=object)
    return pd.DataFrame(
        {
            "best_cell_type": np.where(some, types[best], None),
            "best_cell_type_auroc": np.where(some, tests.heldout.auroc[unit, best], np.nan),
            "best_cell_type_q_value": np.where(some, q_value.reshape(train.shape)[unit, best], np.nan),
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
    size = np.bincount(tests.sample.group[tests.sample.n_train :], minlength=len(types))
    frame = pd.DataFrame(
        {
            "cell_type": np.array(tests.sample.types, dtype=object),
            "kind": kind,
            "unit": units[best].astype(np.int32),
            "name": names[best],
            "auroc_train": train[best, types],
            "auroc": tests.heldout.auroc[best, types],
            "n_cells": size,
        }
    )
    return frame[np.isfinite(train[best, types])].reset_index(drop=True)


def empty_cell_types() -> pd.DataFrame:
    """feature_cell_types.parquet of a run without annotation."""
    return FEATURE_CELL_TYPES.schema.empty_table().to_pandas()


def empty_baselines() -> pd.DataFrame:
    """cell_type_baselines.parquet of a run without annotation."""
    return CELL_TYPE_BASELINES.schema.empty_table().to_pandas()
