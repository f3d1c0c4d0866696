import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.data.split import choose_items, split_items


@given(
    labels=st.lists(st.sampled_from("abcd"), min_size=2, max_size=80),
    fraction=st.floats(0.01, 0.95),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_label_gives_its_share(labels, fraction, seed):
    labels = np.array(labels)
    heldout = split_items(len(labels), labels, fraction, seed)
    assert heldout.shape == labels.shape
    assert 0 < heldout.sum() < len(labels)
    few = 0
    for label in np.unique(labels):
        group = heldout[labels == label]
        if len(group) >= 2:
            assert 0 < group.sum() < len(group)
        assert abs(group.sum() - fraction * len(group)) <= 2
        few += fraction * len(group) < 1 or (1 - fraction) * len(group) < 1
    assert abs(heldout.sum() - fraction * len(labels)) <= 1 + few


def test_the_seed_decides():
    labels = np.repeat(list("abc"), 100)
    first = split_items(300, labels, 0.2, 0)
    np.testing.assert_array_equal(first, split_items(300, labels, 0.2, 0))
    assert (first != split_items(300, labels, 0.2, 1)).any()


@pytest.mark.parametrize("labels", [None, np.array(["x"] * 6)])
def test_six_cells(labels):
    assert split_items(6, labels, 0.2, 0).sum() in (1, 2)


def test_missing_labels_are_a_group():
    labels = np.array(["x", None, "y", None, "x", "y"], dtype=object)
    heldout = split_items(6, labels, 0.2, 0)
    for group in ([0, 4], [1, 3], [2, 5]):
        assert heldout[group].sum() == 1
    np.testing.assert_array_equal(heldout, split_items(6, pd.Categorical(labels), 0.2, 0))


@given(labels=st.lists(st.sampled_from("abcd"), min_size=2, max_size=40), seed=st.integers(0, 99))
def test_only_the_order_of_labels_counts(labels, seed):
    """Categories, text and renamed labels in the same order give the same split."""
    split = split_items(len(labels), labels, 0.3, seed)
    np.testing.assert_array_equal(split, split_items(len(labels), pd.Categorical(labels), 0.3, seed))
    renamed = [f"type {label}" for label in labels]
    np.testing.assert_array_equal(split, split_items(len(labels), renamed, 0.3, seed))


@pytest.mark.parametrize("wanted", [None, 1, 7, 100, 500])
def test_chosen_cells_are_distinct_and_ascending(wanted):
    rows = choose_items(100, wanted, 0)
    assert len(rows) == min(wanted or 100, 100)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, choose_items(100, wanted, 0))


def test_nothing_held_out():
    assert not split_items(100, None, 0.0, 0).any()
    assert not split_items(1, None, 0.5, 0).any()


def test_no_position_is_favoured():
    times = sum(split_items(20, np.repeat([0, 1], 10), 0.25, seed).astype(int) for seed in range(2000))
    assert np.all(np.abs(times - 500) < 110)  # about 5.7 standard deviations
