"""Pairs of a network within drawn lists: the two versions against each other, and the draws themselves."""

from collections import Counter
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sae_genomics.kernels import pairs_drawn  # noqa: F401  its kernels register themselves
from sae_genomics.kernels.arrays import Drawing
from sae_genomics.kernels.choice import KERNELS

KERNEL = KERNELS["pairs_drawn.pairs_drawn"]


def drawing(lists: list[list[int]], bins: np.ndarray, upper: np.ndarray, key: list[int] | None = None) -> Drawing:
    """upper: bool [genes, genes], above the diagonal."""
    first, second = np.nonzero(upper)
    arrays = (
        np.cumsum([0, *map(len, lists)]), np.concatenate([*lists, []]), range(len(lists)) if key is None else key, bins,
        np.concatenate([[0], np.cumsum(np.bincount(bins))]), np.argsort(bins, kind="stable"),
        np.concatenate([[0], np.cumsum(np.bincount(first, minlength=len(bins)))]), second,
        upper.sum(axis=0) + upper.sum(axis=1),
    )  # fmt: skip
    return Drawing(*(np.asarray(each, dtype=np.int64) for each in arrays))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**62), st.integers(1, 30), st.integers(0, 5), st.integers(0, 30), st.floats(0, 1))
def test_both_versions_draw_the_same(seed, n_genes, n_lists, n_draws, share):
    rng = np.random.default_rng(seed)
    bins = rng.integers(0, 4, n_genes)
    bins = np.unique(bins, return_inverse=True)[1]
    upper = np.triu(rng.random((n_genes, n_genes)) < share, 1)
    lists = [rng.choice(n_genes, rng.integers(0, n_genes + 1), replace=False).tolist() for _ in range(n_lists)]
    given_ = drawing(lists, bins, upper, key=rng.integers(0, 2**40, n_lists).tolist())
    (fast, products), (plain, others) = (
        version(given_, 7, 7 + n_draws, seed) for version in (KERNEL.fast, KERNEL.plain)
    )
    np.testing.assert_array_equal(products, others)
    assert products.dtype == others.dtype == np.int64
    degree = given_.degree
    for number, each in enumerate(lists):
        if len(each) == n_genes and n_draws:
            assert products[0, number] == (degree.sum() ** 2 - (degree**2).sum()) // 2
    assert fast.dtype == plain.dtype == np.int32
    assert fast.shape == (n_draws, n_lists)
    np.testing.assert_array_equal(fast, plain)
    whole = [number for number, each in enumerate(lists) if len(each) == n_genes]
    assert (fast[:, whole] == upper.sum()).all()  # a list of all genes can only be drawn as it is
    np.testing.assert_array_equal(fast[n_draws // 2 :], KERNEL.fast(given_, 7 + n_draws // 2, 7 + n_draws, seed)[0])


def test_every_choice_of_genes_of_the_same_bins_is_equally_likely():
    """Each pair of genes is a network of its own, so that counts tell which genes were drawn."""
    bins = np.array([0, 0, 0, 0, 1, 1, 1])
    lists = [[0, 3, 5], [1, 2, 6]]
    n = 12_000
    hit = np.zeros((n, 2, 7, 7), dtype=bool)
    for a in range(7):
        for b in range(a + 1, 7):
            upper = np.zeros((7, 7), dtype=bool)
            upper[a, b] = True
            hit[:, :, a, b] = KERNEL.fast(drawing(lists, bins, upper), 0, n, 99)[0]
    for number in range(2):
        genes = hit[:, number].any(axis=1) | hit[:, number].any(axis=2)
        assert (genes.sum(axis=1) == 3).all()
        assert (genes[:, :4].sum(axis=1) == 2).all()
        counts = Counter(map(tuple, genes.astype(int)))
        assert len(counts) == 6 * 3
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    both = Counter(zip(*(map(tuple, hit[:, number].any(axis=1).astype(int)) for number in range(2)), strict=True))
    assert len(both) > len(list(permutations(range(4), 2)))  # the lists are drawn apart


def test_another_seed_gives_other_draws():
    rng = np.random.default_rng(0)
    upper = np.triu(rng.random((50, 50)) < 0.3, 1)
    lists, bins = [list(range(10))], np.zeros(50, dtype=np.int64)
    one, other = (KERNEL.fast(drawing(lists, bins, upper), 0, 500, seed)[0].ravel() for seed in (1, 2))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.2
    moved = KERNEL.fast(drawing(lists, bins, upper), 1, 501, 1)[0].ravel()
    np.testing.assert_array_equal(one[1:], moved[:-1])
