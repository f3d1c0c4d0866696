"""Cells into windows and batches: every cell once, within the budget, with little padding."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.activations.extraction.cutting import _cheapest_cuts, cut_batches, cut_pieces, cut_windows

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60).map(lambda x: np.array(x, dtype=np.int64))


@given(lengths=LENGTHS, max_rows=st.integers(1, 1000))
def test_windows_are_consecutive_and_as_large_as_fits(lengths, max_rows):
    windows = cut_windows(lengths, max_rows)
    assert [window.start for window in windows] == [0, *(window.stop for window in windows[:-1])]
    assert windows[-1].stop == len(lengths)
    for window in windows:
        rows = lengths[window].sum()
        assert rows <= max_rows or window.stop - window.start == 1
        if window.stop < len(lengths):
            assert rows + lengths[window.stop] > max_rows


@given(lengths=LENGTHS, batch_tokens=st.integers(1, 5000))
def test_batches_hold_every_cell_once_within_the_budget(lengths, batch_tokens):
    batches = cut_batches(lengths, batch_tokens)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(len(lengths)))
    for batch in batches:
        assert len(batch) * lengths[batch].max() <= batch_tokens or len(batch) == 1
    computed = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert computed - lengths.sum() <= 0.05 * computed


@pytest.mark.parametrize("n_cells", [32, 200, 2000])
def test_padding_stays_small_at_few_batches_on_usual_lengths(n_cells):
    """Lengths as cells have them: log-normal, cut at the model's longest."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(6.6, 0.5, n_cells).astype(np.int64), 200, 1024)
    batches = cut_batches(lengths, 16_384)
    computed = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert 1 - lengths.sum() / computed < 0.05
    assert len(batches) <= 2 * np.ceil(lengths.sum() / 16_384) + 8


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8).map(lambda x: np.array(sorted(x, reverse=True))),
    batch_tokens=st.integers(1, 120),
    batch_cost=st.integers(0, 40),
)
def test_the_cut_is_the_best_of_all(lengths, batch_tokens, batch_cost):
    def cost(cuts):
        total = 0
        for start, stop in pairwise(cuts):
            computed = (stop - start) * lengths[start]
            if computed > batch_tokens and stop - start > 1:
                return np.inf
            total += computed + batch_cost
        return total

    n = len(lengths)
    inner = (list(chosen) for size in range(n) for chosen in combinations(range(1, n), size))
    best = min(cost([0, *chosen, n]) for chosen in inner)
    assert cost(_cheapest_cuts(lengths, batch_tokens, batch_cost)) == best


def test_pieces_are_all_cells_in_order():
    lengths = np.array([3, 4, 9, 2, 2, 2, 1])
    pieces = cut_pieces(lengths, 6)
    assert [piece.tolist() for piece in pieces] == [[0], [1], [2], [3, 4, 5], [6]]
