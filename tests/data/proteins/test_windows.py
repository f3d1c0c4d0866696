"""Windows of long proteins cover every residue once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.data.proteins.windows import windows_of


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(1, 80), st.data())
def test_each_residue_is_kept_once_and_windows_fit(lengths, most, data):
    overlap = data.draw(st.integers(0, most - 1))
    windows = windows_of(np.array(lengths), most, overlap)
    assert ((windows.stop - windows.start) <= most).all()
    assert ((windows.start <= windows.kept_start) & (windows.kept_stop <= windows.stop)).all()
    for item, length in enumerate(lengths):
        mine = windows.item == item
        kept = [np.arange(a, b) for a, b in zip(windows.kept_start[mine], windows.kept_stop[mine], strict=True)]
        assert np.concatenate(kept).tolist() == list(range(length))
        shared = windows.stop[mine][:-1] - windows.start[mine][1:]
        assert (shared == overlap).all()
        assert (windows.kept_stop[mine] > windows.kept_start[mine]).all()


def test_an_item_that_fits_is_one_window():
    windows = windows_of(np.array([10, 11]), 10, 4)
    assert windows.item.tolist() == [0, 1, 1]
    assert (windows.start.tolist(), windows.stop.tolist()) == ([0, 0, 6], [10, 10, 11])
    assert (windows.kept_start.tolist(), windows.kept_stop.tolist()) == ([0, 0, 8], [10, 8, 11])


def test_an_overlap_as_long_as_a_window_is_refused():
    with pytest.raises(ValueError, match="cannot overlap"):
        windows_of(np.array([5]), 4, 4)
