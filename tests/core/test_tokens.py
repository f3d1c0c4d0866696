"""Packed tokens: choosing and joining sequences, and cutting long items into windows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.tokens import Tokens, items_in_order, windows_of

COLUMNS = ("item", "token", "unit", "position", "weight", "special")


def some_tokens(lengths, seed=0, stored=False) -> Tokens:
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths, dtype=np.int64)
    n = int(lengths.sum())
    return Tokens(
        item=np.repeat(10 + np.cumsum(rng.integers(0, 2, len(lengths))), lengths),
        token=rng.integers(0, 30, n).astype(np.int32),
        unit=rng.integers(-1, 30, n).astype(np.int32),
        position=rng.integers(0, 1000, n).astype(np.int32),
        weight=rng.random(n).astype(np.float32),
        special=rng.random(n) < 0.3,
        item_ptr=np.concatenate([[0], np.cumsum(lengths)]),
        per_token={"value": rng.random(n).astype(np.float32)},
        per_item={"drug": rng.integers(0, 9, len(lengths))},
        stored=rng.random(n) < 0.6 if stored else None,
    )


def rows_of(tokens, sequence):
    """What one sequence holds, as plain lists."""
    part = slice(tokens.item_ptr[sequence], tokens.item_ptr[sequence + 1])
    columns = {name: getattr(tokens, name)[part].tolist() for name in COLUMNS}
    stored = [True] * (part.stop - part.start) if tokens.stored is None else tokens.stored[part].tolist()
    return columns, tokens.per_token["value"][part].tolist(), int(tokens.per_item["drug"][sequence]), stored


LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=10)


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, data=st.data(), stored=st.booleans())
def test_take_gives_the_chosen_sequences_in_the_chosen_order(lengths, data, stored):
    tokens = some_tokens(lengths, stored=stored)
    first = data.draw(st.integers(0, len(lengths)))
    chosen = data.draw(
        st.lists(st.integers(0, len(lengths) - 1), max_size=12)
        | st.integers(first, len(lengths)).map(lambda last: list(range(first, last)))
    )
    taken = tokens.take(chosen)
    assert taken.n_items == len(chosen)
    assert len(taken) == taken.lengths.sum() == sum(lengths[i] for i in chosen)
    assert [rows_of(taken, i) for i in range(len(chosen))] == [rows_of(tokens, i) for i in chosen]
    assert all(getattr(taken, name).dtype == getattr(tokens, name).dtype for name in COLUMNS)


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, cut=st.integers(0, 10), stored=st.booleans())
def test_concatenate_undoes_cutting(lengths, cut, stored):
    tokens = some_tokens(lengths, stored=stored)
    cut = min(cut, len(lengths))
    again = Tokens.concatenate([tokens.take(range(cut)), tokens.take(range(cut, len(lengths)))])
    assert [rows_of(again, i) for i in range(again.n_items)] == [rows_of(tokens, i) for i in range(tokens.n_items)]
    assert (again.stored is None) == (not stored)


def test_parts_without_a_mask_store_everything():
    whole, masked = some_tokens([3, 2]), some_tokens([4], seed=1, stored=True)
    stored = Tokens.concatenate([whole, masked]).stored
    np.testing.assert_array_equal(stored, [True] * 5 + masked.stored.tolist())


def test_windows_of_one_item_are_one_item():
    tokens = some_tokens([2, 3, 1, 2])
    object.__setattr__(tokens, "item", np.array([7, 7, 7, 7, 7, 9, 11, 11]))
    items, item_of = items_in_order(tokens)
    assert items.tolist() == [7, 9, 11]
    assert item_of.tolist() == [0] * 5 + [1, 2, 2]


@settings(max_examples=300, deadline=None)
@given(lengths=st.lists(st.integers(0, 60), max_size=8), most=st.integers(1, 20), share=st.floats(0, 0.99))
def test_windows_overlap_as_asked_and_keep_each_residue_once(lengths, most, share):
    overlap = int(most * share)
    windows = windows_of(np.array(lengths, dtype=np.int32), most, overlap)
    assert {array.dtype for array in windows} == {np.dtype(np.int64)}
    for item, length in enumerate(lengths):
        mine = [row for row in zip(*(array.tolist() for array in windows), strict=True) if row[0] == item]
        assert mine[0][1] == 0
        assert mine[-1][2] == length
        kept = []
        for _, start, stop, kept_start, kept_stop in mine:
            assert stop - start <= most
            assert start <= kept_start <= kept_stop <= stop
            kept += range(kept_start, kept_stop)
        assert kept == list(range(length)), "each residue once"
        for before, after in pairwise(mine):
            assert before[2] - after[1] == overlap
            assert after[3] - after[1] == overlap // 2, "the border is the middle of the overlap"
        assert (len(mine) == 1) == (length <= most)
    assert (
        len(windows.item) == len(windows.start) == sum(max(1, -(-(n - overlap) // (most - overlap))) for n in lengths)
    )


def test_windows_in_numbers():
    windows = windows_of(np.array([5, 23]), 10, 4)
    assert windows.item.tolist() == [0, 1, 1, 1, 1]
    assert windows.start.tolist() == [0, 0, 6, 12, 18]
    assert windows.stop.tolist() == [5, 10, 16, 22, 23]
    assert windows.kept_start.tolist() == [0, 0, 8, 14, 20]
    assert windows.kept_stop.tolist() == [5, 8, 14, 20, 23]


@pytest.mark.parametrize(("most", "overlap"), [(10, 10), (10, -1), (0, 0)])
def test_windows_that_would_not_move_on(most, overlap):
    with pytest.raises(ValueError, match="cannot overlap"):
        windows_of(np.array([3]), most, overlap)


def test_tokens_without_some_rows_are_those_of_items_that_lack_them() -> None:
    tokens = some_tokens([4, 3, 5], stored=True)
    found = tokens.without([1, 2, 7])
    kept = np.setdiff1d(np.arange(12), [1, 2, 7])
    assert found.lengths.tolist() == [2, 3, 4]
    for name in COLUMNS:
        assert (getattr(found, name) == getattr(tokens, name)[kept]).all()
    assert all((found.per_token[name] == values[kept]).all() for name, values in tokens.per_token.items())
    assert len(found) == 9


def test_other_values_at_some_rows_leave_the_rest_and_the_original() -> None:
    tokens = some_tokens([4, 3])
    name = next(iter(tokens.per_token))
    before = tokens.per_token[name].copy()
    found = tokens.with_values(name, [0, 5], 77)
    assert (found.per_token[name][[0, 5]] == 77).all()
    rest = np.setdiff1d(np.arange(7), [0, 5])
    assert (found.per_token[name][rest] == before[rest]).all()
    assert (tokens.per_token[name] == before).all()
