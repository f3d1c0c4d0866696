import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.data.split import split_cells


@given(
    labels=st.lists(st.sampled_from("abcd"), min_size=2, max_size=80),
    fraction=st.floats(0.01, 0.95),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_label_gives_its_share(labels, fraction, seed):
    labels = np.array(labels)
    heldout = split_cells(len(labels), labels, fraction, seed)
    assert heldout.shape == labels.shape
    assert 0 < heldout.sum() < len(labels)
    for label in np.unique(labels):
        group = heldout[labels == label]
        assert abs(group.sum() - fraction * len(group)) <= 2
    assert abs(heldout.sum() - fraction * len(labels)) <= 1


def test_the_seed_decides():
    labels = np.repeat(list("abc"), 100)
    first = split_cells(300, labels, 0.2, 0)
    np.testing.assert_array_equal(first, split_cells(300, labels, 0.2, 0))
    assert (first != split_cells(300, labels, 0.2, 1)).any()


@pytest.mark.parametrize("labels", [None, np.array(["x"] * 6), np.array(["x", None, "y", None, "x", "y"], dtype=object)])
def test_six_cells(labels):
    assert split_cells(6, labels, 0.2, 0).sum() in (1, 2)


def test_nothing_held_out():
    assert not split_cells(100, None, 0.0, 0).any()
    assert not split_cells(1, None, 0.5, 0).any()


def test_no_position_is_favoured():
    times = sum(split_cells(20, np.repeat([0, 1], 10), 0.25, seed).astype(int) for seed in range(2000))
    assert np.all(np.abs(times - 500) < 110)  # about 5.7 standard deviations
