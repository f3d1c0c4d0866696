import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from sae_genomics.validation.enrichment import _kinds
from sae_genomics.validation.enrichment_tests.fisher import FISHER, hypergeometric_tail
from sae_genomics.validation.gene_lists import GeneLists, top_genes
from sae_genomics.validation.gene_sets import Collection, GeneSet, membership
from sae_genomics.validation.nulls import MATCHED, SHUFFLED, null_row, null_tests, shuffled_within


@settings(deadline=None)
@given(st.data())
def test_tail_is_scipys(data):
    big_n = data.draw(st.integers(1, 30_000))
    big_k, n = data.draw(st.integers(0, big_n)), data.draw(st.integers(0, min(big_n, 150)))
    k = data.draw(st.integers(0, min(big_k, n)))
    found = hypergeometric_tail(np.array([k]), np.array([big_k]), np.array([n]), big_n)[0]
    np.testing.assert_allclose(found, stats.hypergeom.sf(k - 1, big_n, big_k, n), rtol=1e-8, atol=1e-300)


def test_tail_is_exact_far_out():
    """Against whole numbers: C(K, k) C(N - K, n - k) / C(N, n) summed with Python's own."""
    from fractions import Fraction
    from math import comb

    for k, big_k, n, big_n in [(30, 200, 30, 20_000), (29, 30, 30, 20_000), (100, 100, 100, 1000), (5, 5, 30, 765)]:
        total = sum(comb(big_k, x) * comb(big_n - big_k, n - x) for x in range(k, min(big_k, n) + 1))
        expected = float(Fraction(total, comb(big_n, n)))
        found = hypergeometric_tail(np.array([k]), np.array([big_k]), np.array([n]), big_n)[0]
        assert 0 < expected < 1e-6
        np.testing.assert_allclose(found, expected, rtol=1e-8)


def random_case(seed, n_units, n_terms, n_background):
    rng = np.random.default_rng(seed)
    lists = sparse.csr_matrix((rng.random((n_units, n_background)) < 0.2).astype(np.int32))
    lists = lists[np.flatnonzero(np.diff(lists.indptr))]
    sets = sparse.csr_matrix((rng.random((n_background, n_terms)) < 0.2).astype(np.int32))
    return GeneLists(np.arange(lists.shape[0]), lists), sets


def test_kinds_are_the_same_found_either_way():
    rng = np.random.default_rng(0)
    k, set_size, n = rng.integers(1, 6, 500), rng.integers(5, 40, 500), rng.integers(6, 9, 500)
    some, kind = _kinds(k, set_size, n)
    for values in (k, set_size, n):
        np.testing.assert_array_equal(values[some][kind], values)
    assert len(some) == len(set(zip(k, set_size, n, strict=True)))
    far, far_kind = _kinds(k, set_size * 10_000_000, n)
    np.testing.assert_array_equal(k[far][far_kind], k)
    assert len(far) == len(some)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(1, 8), st.integers(5, 60))
def test_enrichment_is_fishers_test_over_all_pairs(seed, n_units, n_terms, n_background):
    lists, sets = random_case(seed, n_units, n_terms, n_background)
    found = FISHER.run(lists, sets)
    dense_lists, dense_sets = lists.matrix.toarray().astype(bool), sets.toarray().astype(bool)
    n_units = len(dense_lists)
    p = np.ones((n_units, n_terms))
    for i in range(n_units):
        for j in range(n_terms):
            a, b = (dense_lists[i] & dense_sets[:, j]).sum(), (dense_lists[i] & ~dense_sets[:, j]).sum()
            c, d = (~dense_lists[i] & dense_sets[:, j]).sum(), (~dense_lists[i] & ~dense_sets[:, j]).sum()
            p[i, j] = stats.fisher_exact([[a, b], [c, d]], alternative="greater").pvalue
            at = np.flatnonzero((found.row == i) & (found.term == j))
            assert len(at) == (a > 0)
            if a:
                odds = (a + 0.5) * (d + 0.5) / ((b + 0.5) * (c + 0.5))
                np.testing.assert_allclose(found.odds_ratio[at[0]], odds)
                assert (found.n_overlap[at[0]], found.n_term[at[0]], found.n_top[at[0]]) == (a, a + c, a + b)
    assert found.n_tests == n_units * n_terms
    if n_units:
        q = stats.false_discovery_control(p.ravel()).reshape(p.shape)
        np.testing.assert_allclose(found.p_value, p[found.row, found.term], rtol=1e-8)
        np.testing.assert_allclose(found.q_value, q[found.row, found.term], rtol=1e-8)


def members_of(symbols):
    collection = Collection("c", (GeneSet("all", "", tuple(symbols)),))
    return membership([collection], np.array(symbols, object), 1, 1000)


def genes_table(rows):
    columns = ["feature", "gene_symbol", "score", "specificity", "rank_score", "rank_specificity"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["rank_specificity"] = frame["rank_specificity"].astype("Int32")
    return frame


ROWS = [
    (3, "A", 9.0, 0.5, 1, 3),
    (3, "B", 8.0, 2.0, 2, 1),
    (3, "b", 7.0, 1.5, 3, 2),  # the same symbol in other letters
    (3, "C", 6.0, np.nan, 4, None),
    (3, "not in the background", 5.5, 0.4, 5, 4),
    (3, "D", 5.0, 0.1, 6, 5),
    (7, "D", 1.0, np.nan, 1, None),
    (8, "A", 1.0, 0.2, 1, 1),
]


@pytest.mark.parametrize("dtype", ["Int32", "float64"])  # as written, and as Parquet gives a column with gaps back
def test_lists_take_ranks_as_they_are_and_symbols_once(dtype):
    members = members_of(["A", "B", "C", "D"])
    table = genes_table(ROWS)
    table["rank_specificity"] = table["rank_specificity"].astype(dtype)

    def lists(rank_by, n):
        found = top_genes(table, members, rank_by, n)
        names = [members.background[row.indices] for row in found.matrix]
        return {int(unit): set(genes) for unit, genes in zip(found.unit, names, strict=True)}

    assert lists("specificity", 2) == {3: {"B", "A"}, 8: {"A"}}
    assert lists("specificity", 10) == {3: {"B", "A", "D"}, 8: {"A"}}
    assert lists("score", 3) == {3: {"A", "B", "C"}, 7: {"D"}, 8: {"A"}}


@pytest.mark.parametrize("null", [SHUFFLED, MATCHED])
def test_shuffling_keeps_sizes_and_breaks_the_tie(null):
    symbols = [f"G{i}" for i in range(200)]
    planted = Collection("c", tuple(GeneSet(f"s{i}", "", tuple(symbols[10 * i : 10 * i + 10])) for i in range(20)))
    members = membership([planted], np.array(symbols, object), 1, 1000)
    rows = [(u, f"G{10 * u + i}", 10.0 - i, 1.0, i + 1, i + 1) for u in range(20) for i in range(10)]
    lists = top_genes(genes_table(rows), members, "specificity", 10)
    real = null_row("features", "features", 0, lists, FISHER.run(lists, members.matrix), 0.05)
    assert (real["n_units"], real["n_annotated"], real["share"], real["n_tests"], real["n_terms"]) == (
        20,
        20,
        1,
        400,
        20,
    )
    bins = np.arange(200) % 8
    shuffled = list(null_tests(FISHER, null, lists, members, bins, 0, 1, 5))
    again = list(null_tests(FISHER, null, lists, members, bins, 0, 1, 5))
    other = next(null_tests(FISHER, null, lists, members, bins, 1, 1, 1))
    for tests, same in zip(shuffled, again, strict=True):
        np.testing.assert_array_equal(tests.p_value, same.p_value)
        assert set(tests.n_top) == {10}
        assert set(tests.n_term) == {10}
        assert tests.n_overlap.sum() == 200  # every listed gene is in one set, whatever it is called
        assert null_row(null, "features", 0, lists, tests, 0.05)["n_annotated"] <= 3
    assert not np.array_equal(shuffled[0].term, shuffled[1].term)
    assert not np.array_equal(shuffled[0].term, other.term)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 5))
def test_names_stay_within_their_bin(seed, n_genes, n_bins):
    rng = np.random.default_rng(seed)
    bins = rng.integers(0, n_bins, n_genes)
    permutation = shuffled_within(bins, rng)
    np.testing.assert_array_equal(np.sort(permutation), np.arange(n_genes))
    np.testing.assert_array_equal(bins[permutation], bins)


def test_every_order_within_a_bin_is_as_likely():
    bins, rng = np.array([0, 1, 0, 1, 0]), np.random.default_rng(0)
    drawn = pd.Series([tuple(shuffled_within(bins, rng)) for _ in range(6000)]).value_counts()
    assert len(drawn) == 12  # 3! x 2!
    assert stats.chisquare(drawn).pvalue > 0.001


def test_a_term_that_many_units_find_is_one_term():
    symbols = [f"G{i}" for i in range(200)]
    members = membership(
        [Collection("c", (GeneSet("s", "", tuple(symbols[:10])),))], np.array(symbols, object), 1, 1000
    )
    rows = [(u, f"G{i}", 10.0 - i, 1.0, i + 1, i + 1) for u in range(8) for i in range(10)]
    lists = top_genes(genes_table(rows), members, "specificity", 10)
    row = null_row("features", "features", 0, lists, FISHER.run(lists, members.matrix), 0.05)
    assert (row["n_annotated"], row["n_terms"], row["terms_per_100_units"]) == (8, 1, 12.5)


def test_no_units_at_all():
    members = members_of(["A", "B"])
    lists = top_genes(genes_table([]), members, "specificity", 5)
    row = null_row("features", "features", 0, lists, FISHER.run(lists, members.matrix), 0.05)
    assert row["n_units"] == row["n_tests"] == 0
    assert np.isnan(row["share"])
    assert np.isnan(row["terms_per_100_units"])
