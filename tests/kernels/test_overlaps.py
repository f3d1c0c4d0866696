"""Overlaps counted and kept: the compiled version gives what the plain one gives, and that is what the definition says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sae_genomics.kernels import overlaps as fast
from sae_genomics.kernels.arrays import Members, OverlapKinds, PairCells
from sae_genomics.kernels.plain import overlaps as plain

VERSIONS = pytest.mark.parametrize("version", [fast, plain])


def case(seed: int, n_lists: int, n_terms: int, n_genes: int) -> tuple[np.ndarray, Members, Members, PairCells]:
    """Shared genes of every list and set [lists, sets], and what the kernels are given."""
    rng = np.random.default_rng(seed)
    lists, sets = (rng.random(shape) < 0.3 for shape in ((n_lists, n_genes), (n_genes, n_terms)))
    shared = lists.astype(int) @ sets.astype(int)
    source = rng.integers(0, 2, n_terms)
    sizes, size = np.unique(sets.sum(axis=0), return_inverse=True)
    cells = PairCells(source, size.astype(np.int64), rng.integers(0, 5, (n_lists, 2)), len(sizes), 5)
    listed, members = (Members.of(sparse.csr_matrix(each.astype(np.int32))) for each in (lists, sets))
    return shared, listed, members, cells


SHAPES = st.tuples(st.integers(0, 30), st.integers(1, 20), st.integers(1, 60))


@VERSIONS
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), shape=SHAPES)
def test_every_kind_is_counted(version, seed, shape):
    shared, listed, members, cells = case(seed, *shape)
    found = version.overlap_kinds(listed, members, cells)
    expected: dict[tuple[int, int], int] = {}
    for (i, j), k in np.ndenumerate(shared):
        if k:
            cell = int(cells.list_class[i, cells.source[j]] * cells.n_sizes + cells.size[j])
            expected[cell, int(k)] = expected.get((cell, int(k)), 0) + 1
    at = np.flatnonzero(found.n_pairs)
    cell = np.searchsorted(found.start, at, side="right") - 1
    counted = dict(
        zip(
            zip(cell.tolist(), (at - found.start[cell] + 1).tolist(), strict=True),
            found.n_pairs[at].tolist(),
            strict=True,
        )
    )
    assert counted == expected


def rows_of(version, given_, rank, n_small, best):
    return [each.tolist() for each in version.kept_overlaps(*given_, rank, n_small, best)]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), shape=SHAPES, best=st.integers(0, 8), share=st.floats(0, 1))
def test_the_pairs_that_stay_are_the_first_of_their_list(seed, shape, best, share):
    shared, listed, members, cells = case(seed, *shape)
    found = plain.overlap_kinds(listed, members, cells)
    rng = np.random.default_rng(seed)
    rank = rng.integers(0, max(len(found.n_pairs) // 2, 1), len(found.n_pairs))
    n_small = int(share * (rank.max(initial=0) + 1))
    expected: list[tuple[int, int, int]] = []
    for i, ks in enumerate(shared):
        pairs = []
        for j, k in enumerate(ks.tolist()):
            if k:
                kind = int(found.start[cells.list_class[i, cells.source[j]] * cells.n_sizes + cells.size[j]]) + k - 1
                pairs.append((int(rank[kind]), j, kind))
        expected += [(i, j, kind) for at, (r, j, kind) in enumerate(sorted(pairs)) if r < n_small or at < best]
    wanted = [list(each) for each in zip(*expected, strict=True)] or [[], [], []]
    for version in (fast, plain):
        assert rows_of(version, (listed, members, cells, found), rank, n_small, best) == wanted


@pytest.mark.parametrize("at_once", [1, 50])
def test_blocks_change_nothing(monkeypatch, at_once):
    _, listed, members, cells = case(3, 40, 30, 50)
    kinds = fast.overlap_kinds(listed, members, cells)
    rank = np.random.default_rng(0).permutation(len(kinds.n_pairs))
    expected = rows_of(fast, (listed, members, cells, kinds), rank, 20, 5)
    monkeypatch.setattr(fast, "LISTS_AT_ONCE", at_once)
    monkeypatch.setattr(plain, "PAIRS_AT_ONCE", at_once)
    for version in (fast, plain):
        again = version.overlap_kinds(listed, members, cells)
        assert isinstance(again, OverlapKinds)
        for name in ("start", "n_pairs"):
            np.testing.assert_array_equal(getattr(again, name), getattr(kinds, name))
        assert rows_of(version, (listed, members, cells, kinds), rank, 20, 5) == expected
