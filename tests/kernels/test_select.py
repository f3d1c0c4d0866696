"""Choosing the largest: both versions, and torch.topk and plain comparisons."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels import select  # noqa: F401  it registers the kernels
from sae_genomics.kernels.choice import KERNELS

TOP_K, ABOVE = KERNELS["select.top_k"], KERNELS["select.above"]
VERSIONS = pytest.mark.parametrize("version", ["fast", "plain"])

Chosen = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def chosen_by(
    version: str, hidden: npt.NDArray[np.float32], weight: npt.NDArray[np.float32], k: int, **how: object
) -> Chosen:
    indices, values = np.empty((len(hidden), k), np.int32), np.empty((len(hidden), k), np.float32)
    getattr(TOP_K, version)(hidden, weight, k, indices, values, **how)
    return indices, values


@VERSIONS
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 3000), k=st.integers(1, 70), scale=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_top_k_is_torch_topk(version: str, rows: int, columns: int, k: int, scale: float, seed: int) -> None:
    k = min(k, columns)
    generator = np.random.default_rng(seed)
    hidden = generator.standard_normal((rows, columns), dtype=np.float32)
    hidden *= np.exp(scale * generator.standard_normal(columns)).astype(np.float32)  # some latents far ahead of others
    weight = generator.uniform(0.5, 1.5, columns).astype(np.float32)
    indices, values = chosen_by(version, hidden, weight, k)
    wanted = torch.from_numpy(hidden * weight).topk(k, dim=1).indices.sort(dim=1).values.numpy()
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_array_equal(values, np.maximum(np.take_along_axis(hidden, wanted, axis=1), 0))


@VERSIONS
@pytest.mark.parametrize(("n", "k"), [(20, 20), (100, 20), (1500, 20)])
def test_a_choice_of_columns_and_signs(version: str, n: int, k: int) -> None:
    generator = np.random.default_rng(0)
    hidden = generator.standard_normal((5, 2000), dtype=np.float32) - 3
    weight = generator.uniform(0.5, 1.5, 2000).astype(np.float32)
    among = np.sort(generator.choice(2000, n, replace=False)).astype(np.int32)
    indices, values = chosen_by(version, hidden, weight, k, among=among, rectify=False)
    wanted = among[torch.from_numpy((hidden * weight)[:, among]).topk(k, dim=1).indices.sort(dim=1).values.numpy()]
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_array_equal(values, np.take_along_axis(hidden, wanted, axis=1))


@VERSIONS
@pytest.mark.parametrize("columns", [30, 5000])
def test_ties_and_nan(version: str, columns: int) -> None:
    """Ties leave exactly k, the lower columns; rows of NaN end, and show NaN."""
    hidden = np.zeros((3, columns), np.float32)
    hidden[1] = np.nan
    hidden[2, ::2] = np.nan
    hidden[2, 1::2] = np.arange(columns // 2)
    indices, values = chosen_by(version, hidden, np.ones(columns, np.float32), 4)
    np.testing.assert_array_equal(indices[0], [0, 1, 2, 3])
    assert np.isnan(values[1]).all()
    np.testing.assert_array_equal(values[2], np.arange(columns // 2)[-4:])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 20), columns=st.integers(1, 1500), k=st.integers(1, 40), subset=st.booleans(),
    rectify=st.booleans(), damage=st.sampled_from([0.0, 0.5, 0.99, 1.0]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_both_versions_choose_the_same(
    rows: int, columns: int, k: int, subset: bool, rectify: bool, damage: float, seed: int
) -> None:
    """Also among few different numbers, where ties decide, and where NaN and infinity stand between them."""
    generator = np.random.default_rng(seed)
    hidden = generator.integers(-3, 4, (rows, columns)).astype(np.float32)
    hidden[generator.random((rows, columns)) < damage] = np.nan
    hidden[generator.random((rows, columns)) < 0.05] = np.inf
    hidden[generator.random((rows, columns)) < 0.05] = -np.inf
    weight = generator.choice(np.array([0.5, 1, 2], np.float32), columns)
    among = np.flatnonzero(generator.random(columns) < 0.7).astype(np.int32) if subset else None
    if among is not None and len(among) == 0:
        among = None
    k = min(k, columns if among is None else len(among))
    fast, plain = (chosen_by(version, hidden, weight, k, among=among, rectify=rectify) for version in ("fast", "plain"))
    np.testing.assert_array_equal(fast[0], plain[0])
    np.testing.assert_array_equal(fast[1], plain[1])
    if rectify:
        assert not (fast[1] < 0).any()


@VERSIONS
@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 40), columns=st.integers(1, 400), seed=st.integers(0, 10**6))
def test_above(version: str, rows: int, columns: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    hidden = generator.standard_normal((rows, columns), dtype=np.float32)
    threshold = generator.uniform(0, 2, columns).astype(np.float32)
    row, column, value = getattr(ABOVE, version)(hidden, threshold)
    assert (row.dtype, column.dtype, value.dtype) == (np.int64, np.int32, np.float32)
    wanted = np.nonzero(hidden > threshold)
    np.testing.assert_array_equal(row, wanted[0])
    np.testing.assert_array_equal(column, wanted[1])
    np.testing.assert_array_equal(value, hidden[wanted])
