import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sae_genomics.data.cells.counts import (
    MIN_EVIDENCE_BITS,
    CountsForm,
    NotCounts,
    stored_decimals,
    to_counts,
)
from tests.data.conftest import log_normalised, random_counts


def decoded(values, scale, decimals="find"):
    block = sparse.csr_matrix(values)
    found = stored_decimals(block) if decimals == "find" else decimals
    counts, bits = to_counts(block, CountsForm(scale, found))
    return counts.toarray(), bits


@settings(max_examples=80, deadline=None)
@given(
    cells=st.integers(6, 40),
    genes=st.integers(40, 120),
    seed=st.integers(0, 10_000),
    mean=st.floats(0.3, 5),
    depth=st.floats(1, 30),
    decimals=st.sampled_from([None, 3, 4]),
    target=st.sampled_from([1e4, 2e3, 1e6]),
)
def test_counts_come_back_from_log1p(cells, genes, seed, mean, depth, decimals, target):
    counts = random_counts(cells, genes, seed, mean)
    counts[0] = counts[0] > 0  # a cell with a single distinct value
    counts[1] = 0
    counts[2:, 0] = 1  # the smallest count is 1; cells where it is not have a test of their own
    rng = np.random.default_rng(seed)
    full = counts.sum(axis=1, keepdims=True) * depth * rng.uniform(0.5, 1.5, (cells, 1)) + 1  # further genes left out
    unit = target / full
    values = np.log1p(counts * unit)
    if decimals is not None:
        worst = 0.5 * 10.0**-decimals * (1 + unit) / unit
        if worst.max() > 0.004:  # the unit itself drowns in the rounding
            return
        values = np.round(values, decimals)
    back, bits = decoded(values.astype(np.float32), "log1p_normalised")
    large = counts > 200  # 3 decimals do not carry every digit of a large count
    np.testing.assert_array_equal(back[~large], counts[~large])
    assert np.allclose(back[large], counts[large], rtol=0.005)
    assert bits >= MIN_EVIDENCE_BITS


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), smallest=st.integers(2, 7))
def test_a_cell_whose_smallest_count_is_not_one(seed, smallest):
    counts = random_counts(8, 100, seed, 3)
    counts[3] = np.where(counts[3] > 0, counts[3] + smallest - 1, 0)
    counts[3, :2] = smallest, smallest + 1  # coprime, so that the unit is no multiple
    back, _ = decoded(log_normalised(counts), "log1p_normalised")
    np.testing.assert_array_equal(back, counts)


def test_log1p_of_raw_counts_keeps_the_counts():
    counts = random_counts(20, 50) * 2
    np.testing.assert_array_equal(decoded(np.log1p(counts), "log1p_counts")[0], counts)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), cells=st.integers(6, 50), genes=st.integers(5, 60), density=st.floats(0.02, 1))
def test_fractions_never_pass_for_counts(seed, cells, genes, density):
    rng = np.random.default_rng(seed)
    values = rng.gamma(2, 1, (cells, genes)) * (rng.random((cells, genes)) < density)
    for scale in ("log1p_counts", "log1p_normalised"):
        try:
            _, bits = decoded(values.astype(np.float32), scale)
        except NotCounts:
            continue
        assert bits < MIN_EVIDENCE_BITS


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["one fraction", "halves", "thirds", "quarters", "uniform", "few values"]),
    cells=st.integers(6, 40),
    mean=st.floats(0.1, 3),
)
def test_nor_do_numbers_of_few_kinds(seed, kind, cells, mean):
    counts = random_counts(cells, 60, seed, mean).astype(np.float64)
    rng = np.random.default_rng(seed)
    if kind == "one fraction":
        counts[3, 4] = rng.uniform(0.01, 1)
    elif kind == "uniform":
        counts *= rng.uniform(0.1, 2)
    elif kind == "few values":
        counts = rng.choice(np.append(rng.uniform(0.1, 3, 4), 0), counts.shape)
    else:
        counts /= {"halves": 2, "thirds": 3, "quarters": 4}[kind]
    for scale in ("log1p_counts", "log1p_normalised"):
        try:
            _, bits = decoded(counts.astype(np.float32), scale)
        except NotCounts:
            continue
        assert bits < MIN_EVIDENCE_BITS


@pytest.mark.parametrize("decimals", [None, 3, 4])
def test_small_counts_alone_are_evidence_enough(decimals):
    counts = np.minimum(random_counts(20, 50), 3)
    values = np.log1p(counts) if decimals is None else np.round(np.log1p(counts), decimals)
    back, bits = decoded(values.astype(np.float32), "log1p_counts")
    np.testing.assert_array_equal(back, counts)
    assert bits >= MIN_EVIDENCE_BITS


def test_a_cells_counts_do_not_depend_on_the_block():
    values = np.round(log_normalised(random_counts(30, 80)), 3)
    whole, _ = decoded(values, "log1p_normalised", 3)
    alone = np.concatenate([decoded(values[i : i + 1], "log1p_normalised", 3)[0] for i in range(30)])
    np.testing.assert_array_equal(whole, alone)


@pytest.mark.parametrize(
    ("bad", "what"), [(-1.0, "negative"), (np.nan, "nan"), (np.inf, "infinite"), (1.3, "fraction")]
)
def test_the_first_bad_value_is_found(bad, what):
    counts = random_counts(30, 40)
    counts[11, 7] = counts[20, 3] = bad
    with pytest.raises(NotCounts) as error:
        decoded(counts, "counts")
    assert (error.value.row, error.value.column, error.value.what) == (11, 7, what)
    np.testing.assert_equal(error.value.value, np.float32(bad))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, bool])
def test_every_type_of_number(dtype):
    counts = random_counts(10, 20).astype(dtype)
    np.testing.assert_array_equal(decoded(counts, "counts")[0].astype(float), counts.astype(float))


def test_almost_whole_numbers_are_rounded_and_small_fractions_refused():
    counts = random_counts(10, 20)
    nearly = np.where(counts > 0, counts + 4e-4, 0).astype(np.float32)
    np.testing.assert_array_equal(decoded(nearly, "counts")[0], counts)
    nearly[4, 4] = 5e-4
    with pytest.raises(NotCounts):
        decoded(nearly, "counts")


def test_stored_zeros_are_dropped():
    block = sparse.csr_matrix((np.array([0.0, 2, 0, 3], np.float32), [0, 1, 1, 2], [0, 2, 4]), shape=(2, 3))
    counts, _ = to_counts(block, CountsForm("counts"))
    assert counts.nnz == 2
    assert block.nnz == 4


@pytest.mark.parametrize(("decimals", "found"), [(1, 1), (2, 2), (3, 3), (4, 4), (None, None)])
def test_decimals(decimals, found):
    values = log_normalised(random_counts(40, 80))
    values = values if decimals is None else np.round(values, decimals)
    assert stored_decimals(sparse.csr_matrix(values)) == found
