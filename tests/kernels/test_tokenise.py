"""Both versions of counting and writing tokens give the same, bit for bit. What the tokens are is tested in tests/models."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels.choice import KERNELS
from sae_genomics.kernels.tokenise import OUTSIDE, UNSORTED, Counts, Rules

COUNT, WRITE = KERNELS["tokenise.count_expressed"], KERNELS["tokenise.write_tokens"]
N_COLUMNS = 60

small = st.integers(0, 4).map(float)
numbers = [small, st.integers(0, 3000).map(float), st.floats(2**-10, 1e4, width=32), st.integers(0, 2**30).map(float)]
cells = st.sampled_from(numbers).flatmap(lambda number: st.lists(number, max_size=N_COLUMNS))


def some_counts(lists, unmatched, seed):
    """The first columns of each cell, or as many drawn at random; zeros are stored."""
    generator = np.random.default_rng(seed)
    columns = [np.sort(generator.choice(N_COLUMNS, len(cell), replace=False)) for cell in lists]
    gene_ids = generator.permutation(N_COLUMNS).astype(np.int32)
    gene_ids[:unmatched] = -1
    return Counts(
        np.concatenate([np.empty(0), *lists]).astype(np.float32),
        np.concatenate([np.empty(0, int), *columns]).astype(np.uint32),
        np.cumsum([0, *map(len, lists)]),
        gene_ids,
    )


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@settings(max_examples=300, deadline=None)
@given(
    lists=st.lists(cells, max_size=8), unmatched=st.sampled_from([0, 20, N_COLUMNS]), n_special=st.integers(0, 2),
    n_raw=st.integers(0, 3), limit=st.sampled_from([0, 3, 20, 100]), sampling=st.booleans(), binning=st.booleans(),
    n_levels=st.sampled_from([1, 2, 50, 64, 200]), right=st.booleans(), seed=st.sampled_from([0, 7, 2**63]),
)  # fmt: skip
def test_both_versions_write_the_same(
    lists, unmatched, n_special, n_raw, limit, sampling, binning, n_levels, right, seed
):
    counts = some_counts(lists, unmatched, seed % 11)
    rules = Rules(
        np.arange(1000, 1000 + n_special, dtype=np.int32), np.float32(-2), n_raw, limit, sampling, np.uint64(seed), binning,
        np.linspace(0, 1, n_levels, dtype=np.float32), right,
    )  # fmt: skip
    lengths, faults = COUNT.fast(counts)
    same((lengths, faults), COUNT.plain(counts))
    assert not faults.any()
    arguments = counts, np.log1p(counts.data), np.arange(len(lists)) * 3 + 5, lengths, rules
    item_ptr, columns = WRITE.fast(*arguments)
    expected_ptr, expected = WRITE.plain(*arguments)
    same((item_ptr, *columns), (expected_ptr, *expected))


@pytest.mark.parametrize("value", [np.inf, 1e-40])
def test_counts_that_no_integer_stands_for(value):
    counts = some_counts([[1.0, value, 3.0, 2.0], [value]], 0, 0)
    rules = Rules(
        np.array([9], np.int32), np.float32(0), 0, 10, False, np.uint64(0), True, np.linspace(0, 1, 3, dtype=np.float32), False
    )  # fmt: skip
    lengths, _ = COUNT.fast(counts)
    versions = [version(counts, counts.data, np.arange(2), lengths, rules)[1] for version in (WRITE.fast, WRITE.plain)]
    if np.isfinite(value):
        same(*versions)
    else:  # edges between infinities are no numbers, and no bin is right
        same(versions[0][:-1], versions[1][:-1])


def test_faults_are_those_of_their_cells():
    counts = some_counts([[1.0, 2.0], [1.0, 2.0, 3.0], [], [4.0, 5.0]], 0, 0)
    counts.column[:] = [3, 4, 7, 6, 8, 2, N_COLUMNS]
    for version in (COUNT.fast, COUNT.plain):
        lengths, faults = version(counts)
        assert faults.tolist() == [0, UNSORTED, 0, OUTSIDE]
        assert lengths.tolist() == [2, 0, 0, 0]
