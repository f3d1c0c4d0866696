"""Sums per pair: hash tables against the plain version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels import compiled, pair_table
from sae_genomics.kernels.arrays import Active
from sae_genomics.kernels.choice import KERNELS
from sae_genomics.kernels.pair_sums import add_pairs
from sae_genomics.kernels.pair_table import PairTable

N_ROWS, N_COLUMNS = 9, 30


def tokens(rng: np.random.Generator, n: int, share: float) -> tuple[np.ndarray, np.ndarray, Active]:
    dense = rng.random((n, N_COLUMNS)) < share
    token, column = np.nonzero(dense)
    ptr = np.searchsorted(token, np.arange(n + 1))
    activation = rng.lognormal(0, 2, len(token)).astype(np.float32)
    row = rng.integers(-1, N_ROWS, n).astype(np.int32)
    return row, rng.integers(1, 50, n).astype(np.float32), Active(ptr, column.astype(np.int32), activation)


def all_sums(table: PairTable) -> np.ndarray:
    """float64 [rows, columns, 3]."""
    sums = np.zeros((N_ROWS, N_COLUMNS, 3))
    sums[table.dense_rows] = table.dense
    row, column, values = table.other_pairs()
    assert len(np.unique(row * N_COLUMNS + column)) == len(row)
    assert not np.isin(row, table.dense_rows).any()
    sums[row, column] = values
    return sums


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.lists(st.integers(0, 40), min_size=1, max_size=4), st.sampled_from([0.0, 0.05, 0.6]),
    st.integers(0, N_ROWS), st.integers(1, 4),
)  # fmt: skip
def test_both_versions_add_the_same(seed, lengths, share, n_dense, n_tables):
    rng = np.random.default_rng(seed)
    dense = np.sort(rng.choice(N_ROWS, n_dense, replace=False))
    fast, plain = (PairTable(N_ROWS, N_COLUMNS, dense, n_tables) for _ in range(2))
    expected = np.zeros((N_ROWS, N_COLUMNS, 3))
    for n in lengths:
        row, weight, active = tokens(rng, n, share)
        KERNELS["pair_sums.add_pairs"].fast(fast, row, weight, active)
        KERNELS["pair_sums.add_pairs"].plain(plain, row, weight, active)
        token = np.repeat(np.arange(n), np.diff(active.ptr))
        a = active.activation.astype(np.float64)
        for values in zip(row[token], active.unit, a * weight[token], a, strict=True):
            if values[0] >= 0:
                expected[values[0], values[1]] += (*values[2:], 1)
    np.testing.assert_array_equal(all_sums(fast), expected)
    np.testing.assert_array_equal(all_sums(plain), expected)


@pytest.mark.parametrize("version", ["fast", "plain"])
def test_tables_grow_with_pairs_and_not_with_tokens(version, monkeypatch):
    monkeypatch.setattr(pair_table, "_FIRST_CAPACITY", 4)
    add = getattr(KERNELS["pair_sums.add_pairs"], version)
    batch = tokens(np.random.default_rng(0), 50, 0.5)
    table = PairTable(N_ROWS, N_COLUMNS, np.zeros(0, np.int64))
    before = table.n_bytes
    add(table, *batch)
    first = table.n_bytes
    assert first > before
    for _ in range(5):
        add(table, *batch)
    assert table.n_bytes == first
    assert len(table.other_pairs()[0]) == table.used[0]


def test_threads_change_nothing(monkeypatch):
    found = []
    for threads in (1, 4):
        monkeypatch.setattr(compiled, "cpu_threads", lambda threads=threads: threads)
        table = PairTable(N_ROWS, N_COLUMNS, np.arange(3), 4)
        add_pairs(table, *tokens(np.random.default_rng(1), 60, 0.3))
        found.append(all_sums(table))
    np.testing.assert_array_equal(found[0], found[1])
