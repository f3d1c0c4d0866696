import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.associations.cell_sample import sample_cells


def cells(types, heldout):
    return pd.DataFrame({"label": np.array(types, object), "heldout": np.array(heldout, bool)})


def test_all_annotated_cells_when_they_are_few():
    sample = sample_cells(cells(["b", "a", None, "b", "a"], [0, 1, 0, 0, 0]), 10, 0)
    assert sample.types == ["a", "b"]
    assert sample.cell.tolist() == [0, 3, 4, 1]
    assert sample.group.tolist() == [1, 1, 0, 0]
    assert sample.n_train == 3
    assert sample.row.tolist() == [0, 3, -1, 1, 2]


def test_without_annotation_there_is_no_sample():
    assert len(sample_cells(cells([None, None], [0, 1]), 10, 0)) == 0


@settings(deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 400), min_size=1, max_size=6), st.integers(10, 200))
def test_a_sample_keeps_shares_and_rare_types(seed, sizes, max_cells):
    types = [f"t{i}" for i, size in enumerate(sizes) for _ in range(size)]
    table = cells(types, np.zeros(len(types)))
    sample = sample_cells(table, max_cells, seed)
    assert len(sample) <= max_cells
    assert len(sample) > max_cells - len(sizes) - 1 or len(sample) == len(types)
    assert len(set(sample.cell)) == len(sample)
    again = sample_cells(table, max_cells, seed)
    np.testing.assert_array_equal(sample.cell, again.cell)
    least = min(50, max_cells // (2 * max(len(sample.types), 1)))
    for number, name in enumerate(sample.types):
        size = types.count(name)
        assert (sample.group == number).sum() >= min(size, least)
    assert all(types[cell] == sample.types[group] for cell, group in zip(sample.cell, sample.group, strict=True))


def test_another_seed_draws_other_cells():
    table = cells(["a"] * 500, np.arange(500) % 2)
    first, second = sample_cells(table, 50, 1), sample_cells(table, 50, 2)
    assert set(first.cell) != set(second.cell)
    assert first.n_train == 50
    assert len(first) == 100
