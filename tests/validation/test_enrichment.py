"""Fisher's test of all lists against all sets: exact p, backgrounds per source, q over every test, and which tests have a row."""

from dataclasses import replace
from fractions import Fraction
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from sae_genomics.validation import feature_terms
from sae_genomics.validation.enrichment import Keep, Sets
from sae_genomics.validation.enrichment_tests.fisher import FISHER, hypergeometric_tail
from sae_genomics.validation.gene_lists import GeneLists, top_genes
from sae_genomics.validation.gene_sets import Collection, GeneSet, membership
from sae_genomics.validation.null_rows import Tested, null_rows
from sae_genomics.validation.nulls import MATCHED, SHUFFLED, annotated, null_tests, shuffled_within

EVERYTHING = Keep(1.0, 20)


def tail_of(k: int, big_k: int, n: int, big_n: int) -> float:
    return float(hypergeometric_tail(*(np.array([each]) for each in (k, big_k, n, big_n)))[0])


def exact_tail(k: int, big_k: int, n: int, big_n: int) -> float:
    """With whole numbers."""
    first, last = max(k, n + big_k - big_n, 0), min(big_k, n)
    total = term = comb(big_k, first) * comb(big_n - big_k, n - first) if first <= last else 0
    for x in range(first, last):
        term = term * (big_k - x) * (n - x) // ((x + 1) * (big_n - big_k - n + x + 1))
        total += term
    return float(Fraction(total, comb(big_n, n)))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_tail_is_exact(data):
    big_n = data.draw(st.integers(1, 60_000))
    big_k, n = data.draw(st.integers(0, min(big_n, 2000))), data.draw(st.integers(0, min(big_n, 500)))
    k = data.draw(st.integers(0, min(big_k, n)))
    np.testing.assert_allclose(tail_of(k, big_k, n, big_n), exact_tail(k, big_k, n, big_n), rtol=1e-9, atol=1e-300)


# Far out scipy itself is good to about 1e-9, and 1 - 1e-9 of the time; where it is not, whole numbers decide (the test above).
@settings(deadline=None, max_examples=150)
@given(st.data())
def test_tail_is_scipys(data):
    big_n = data.draw(st.integers(1, 20_000))
    big_k, n = data.draw(st.integers(0, big_n)), data.draw(st.integers(0, min(big_n, 150)))
    k = data.draw(st.integers(0, min(big_k, n)))
    found = tail_of(k, big_k, n, big_n)
    np.testing.assert_allclose(found, stats.hypergeom.sf(k - 1, big_n, big_k, n), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    ("k", "big_k", "n", "big_n", "below"),
    [
        (30, 200, 30, 20_000, 1e-60),
        (29, 30, 30, 20_000, 1e-80),
        (100, 100, 100, 1000, 1e-130),
        (95, 120, 100, 15_000, 1e-200),
        (129, 150, 140, 20_000, 1e-290),
        (5, 5, 30, 765, 1e-6),
    ],
)
def test_tail_is_exact_far_out(k, big_k, n, big_n, below):
    assert 0 < exact_tail(k, big_k, n, big_n) < below
    np.testing.assert_allclose(tail_of(k, big_k, n, big_n), exact_tail(k, big_k, n, big_n), rtol=1e-9)


def random_case(seed, n_units, n_terms, n_background, n_sources=1):
    """Lists, and sets of sources that could have named some of the genes."""
    rng = np.random.default_rng(seed)
    lists = sparse.csr_matrix((rng.random((n_units, n_background)) < 0.2).astype(np.int32))
    lists = lists[np.flatnonzero(np.diff(lists.indptr))]
    source = np.sort(rng.integers(0, n_sources, n_terms))
    universe = rng.random((n_background, n_sources)) < (0.7 if n_sources > 1 else 1.0)
    members = (rng.random((n_background, n_terms)) < 0.2) & universe[:, source]
    bins = rng.integers(0, 3, n_background)
    return GeneLists(np.arange(lists.shape[0]), lists), Sets(
        sparse.csr_matrix(members.astype(np.int32)), source, universe, bins
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(1, 8), st.integers(5, 60), st.integers(1, 3))
def test_enrichment_is_fishers_test_over_all_pairs(seed, n_units, n_terms, n_background, n_sources):
    lists, sets = random_case(seed, n_units, n_terms, n_background, n_sources)
    found = FISHER.run(lists, sets, EVERYTHING)
    dense_lists, dense_sets = lists.matrix.toarray().astype(bool), sets.matrix.toarray().astype(bool)
    n_units = len(dense_lists)
    odds, low, high = found.odds_ratio()
    p = np.ones((n_units, n_terms))
    for i in range(n_units):
        for j in range(n_terms):
            named = sets.universe[:, sets.source[j]]
            listed, members = dense_lists[i][named], dense_sets[named, j]
            a, b = (listed & members).sum(), (listed & ~members).sum()
            c, d = (~listed & members).sum(), (~listed & ~members).sum()
            p[i, j] = stats.fisher_exact([[a, b], [c, d]], alternative="greater").pvalue
            at = np.flatnonzero((found.row == i) & (found.term == j))
            assert len(at) == (a > 0)
            if a:
                cells = np.array([a, b, c, d]) + 0.5
                ratio = cells[0] * cells[3] / (cells[1] * cells[2])
                np.testing.assert_allclose(odds[at[0]], ratio)
                error = np.sqrt((1 / cells).sum())
                interval = np.log(ratio) + np.array([-1, 1]) * stats.norm.ppf(0.975) * error
                np.testing.assert_allclose([low[at[0]], high[at[0]]], np.exp(interval))
                counts = found.n_overlap[at[0]], found.n_term[at[0]], found.n_top[at[0]], found.n_background[at[0]]
                assert counts == (a, a + c, a + b, a + b + c + d)
    assert found.n_tests == n_units * n_terms
    if n_units:
        q = stats.false_discovery_control(p.ravel()).reshape(p.shape)
        np.testing.assert_allclose(found.p_value, p[found.row, found.term], rtol=1e-8)
        np.testing.assert_allclose(found.q_value, q[found.row, found.term], rtol=1e-8)
        for number in range(n_sources):
            mine = sets.source == number
            if mine.any():
                p[:, mine] = stats.false_discovery_control(p[:, mine].ravel()).reshape(p[:, mine].shape)
        np.testing.assert_allclose(found.q_source, p[found.row, found.term], rtol=1e-8)


def test_what_is_kept_changes_no_q():
    lists, sets = random_case(5, 40, 60, 90, 3)
    everything = FISHER.run(lists, sets, Keep(1.0))
    found = FISHER.run(lists, sets, Keep(0.05, 4))
    assert len(found.row) < len(everything.row)
    assert found.n_tests == everything.n_tests

    def frame(tests):
        names = ("row", "term", "n_overlap", "n_term", "n_top", "n_background", "p_value", "q_value", "q_source")
        return pd.DataFrame({name: getattr(tests, name) for name in names})

    wanted = frame(everything).sort_values(["row", "p_value", "term"], kind="stable")
    wanted = wanted[(wanted["p_value"] <= 0.05) | (wanted.groupby("row").cumcount() < 4)]
    assert ((wanted["p_value"] > 0.05).groupby(wanted["row"]).sum() > 0).any(), "some rows are there as the best alone"
    pd.testing.assert_frame_equal(frame(found), wanted.reset_index(drop=True))


def interval_covers(rng, odds: float, n_draws: int) -> float:
    """Share of draws from Fisher's noncentral hypergeometric distribution whose interval holds the true odds ratio."""
    big_n, big_k, n = 4000, 80, 100
    k = stats.nchypergeom_fisher.rvs(big_n, big_k, n, odds, size=n_draws, random_state=rng)
    one = np.full(n_draws, 0)
    tests = FISHER.run(*random_case(0, 1, 1, 20), EVERYTHING)
    tests = replace(tests, n_overlap=k, n_term=one + big_k, n_top=one + n, n_background=one + big_n)
    _, low, high = tests.odds_ratio()
    return float(np.mean((low <= odds) & (odds <= high)))


@pytest.mark.parametrize("odds", [2.0, 5.0, 20.0])
def test_the_interval_holds_the_true_odds_ratio(odds):
    assert 0.93 <= interval_covers(np.random.default_rng(1), odds, 4000) <= 0.99


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.9))
def test_a_p_that_is_left_out_changes_no_q_below_the_bound(seed, fdr):
    lists, sets = random_case(seed, 20, 30, 60, 2)
    every = FISHER.run(lists, sets, Keep(1.0))
    whole = FISHER.beside_expression(lists, sets, every, np.ones(len(every.row), bool))
    tests, some = annotated(FISHER, lists, sets, fdr)
    for name in ("q", "q_source"):
        for of, matched in ((every, whole), (tests, some)):
            passes = getattr(matched, name) < fdr
            one = pd.Series(getattr(matched, name)[passes], index=of.row[passes] * 1000 + of.term[passes]).sort_index()
            if of is every:
                expected = one
        pd.testing.assert_series_equal(one, expected)
    assert (whole.q + 1e-12 >= every.q_value).all()


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


def sets_of(members) -> Sets:
    return Sets(members.matrix, members.source, members.universe, np.zeros(len(members.background), np.int64))


def row_of(lists, sets: Sets) -> dict:
    """The row of annotation_nulls.parquet for lists as they are and all collections."""
    found = annotated(FISHER, lists, sets, 0.05)
    return null_rows(Tested("features", "features", 0), lists, sets, ["c"], found, 0.05)[0]


@pytest.mark.parametrize("null", [SHUFFLED, MATCHED])
def test_shuffling_keeps_sizes_and_breaks_the_tie(null):
    symbols = [f"G{i}" for i in range(200)]
    planted = Collection("c", tuple(GeneSet(f"s{i}", "", tuple(symbols[10 * i : 10 * i + 10])) for i in range(20)))
    members = membership([planted], np.array(symbols, object), 1, 1000)
    rows = [(u, f"G{10 * u + i}", 10.0 - i, 1.0, i + 1, i + 1) for u in range(20) for i in range(10)]
    lists = top_genes(genes_table(rows), members, "specificity", 10)
    bins = np.arange(200) % 8
    sets = Sets(members.matrix, members.source, members.universe, bins)
    real = row_of(lists, sets)
    assert (real["n_units"], real["n_annotated"], real["share"], real["n_tests"], real["n_terms"]) == (
        20,
        20,
        1,
        400,
        20,
    )
    shuffled = list(null_tests(FISHER, null, lists, sets, (0, 1), 5, 0.99))
    again = list(null_tests(FISHER, null, lists, sets, (0, 1), 5, 0.99))
    other = next(null_tests(FISHER, null, lists, sets, (1, 1), 1, 0.99))
    for (tests, matched), (same, _) in zip(shuffled, again, strict=True):
        np.testing.assert_array_equal(tests.p_value, same.p_value)
        assert set(tests.n_top) == {10}
        assert set(tests.n_term) == {10}
        assert tests.n_overlap.sum() == 200  # every listed gene is in one set, whatever it is called
        assert null_rows(Tested(null, "features", 0), lists, sets, ["c"], (tests, matched), 0.05)[0]["n_annotated"] <= 3
    assert not np.array_equal(shuffled[0][0].term, shuffled[1][0].term)
    assert not np.array_equal(shuffled[0][0].term, other[0].term)


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
    row = row_of(lists, sets_of(members))
    assert (row["n_annotated"], row["n_terms"], row["terms_per_100_units"]) == (8, 1, 12.5)


def test_no_units_at_all():
    members = members_of(["A", "B"])
    lists = top_genes(genes_table([]), members, "specificity", 5)
    row = row_of(lists, sets_of(members))
    assert row["n_units"] == row["n_tests"] == 0
    assert np.isnan(row["share"])
    assert np.isnan(row["terms_per_100_units"])


@pytest.mark.parametrize("at_once", [1, 50, 1 << 22])
def test_shared_genes_are_named_whatever_the_blocks(monkeypatch, at_once):
    symbols = np.array([f"G{i:03}" for i in range(90)], object)
    rng = np.random.default_rng(3)
    chosen = [tuple(symbols[rng.permutation(90)[: rng.integers(3, 30)]]) for _ in range(30)]
    members = membership(
        [Collection("c", tuple(GeneSet(f"s{i}", "", each) for i, each in enumerate(chosen)))], symbols, 1, 90
    )
    lists, _ = random_case(5, 40, 1, 90)
    monkeypatch.setattr(feature_terms, "ENTRIES_AT_ONCE", at_once)
    tests = FISHER.run(lists, sets_of(members), Keep(0.3, 2))
    found = feature_terms.shared_genes(lists, tests, members)
    for row, term, text, k in zip(tests.row, tests.term, found, tests.n_overlap, strict=True):
        listed = set(symbols[lists.matrix[row].indices])
        assert set(text.split(",")) == listed & set(chosen[term])
        assert len(text.split(",")) == k


def test_a_gene_that_a_source_could_not_name_is_in_none_of_its_tests():
    symbols = np.array([f"G{i}" for i in range(100)], object)
    any_gene = Collection("any", (GeneSet("a", "", ("G1", "G2", "G3")),))
    few = Collection("few", (GeneSet("b", "", ("g1", "G2", "G3")),), universe=frozenset(f"G{i}" for i in range(10)))
    members = membership([any_gene, few], symbols, 1, 50)
    lists = top_genes(
        genes_table([(0, f"G{i}", 99.0 - i, 1.0, i + 1, i + 1) for i in range(1, 25)]), members, "score", 24
    )
    found = FISHER.run(lists, sets_of(members), EVERYTHING)
    order = np.argsort(found.term)
    assert found.n_background[order].tolist() == [100, 10]
    assert found.n_top[order].tolist() == [24, 9]
    assert found.n_term.tolist() == [3, 3]
    np.testing.assert_allclose(
        found.p_value[order], [stats.hypergeom.sf(2, 100, 3, 24), stats.hypergeom.sf(2, 10, 3, 9)]
    )
    whole = membership([any_gene, few], symbols, 1, 50, of_source=False)
    assert FISHER.run(lists, sets_of(whole), EVERYTHING).n_background.tolist() == [100, 100]
