"""The test over the whole ranking: scores with ties, p that random sets keep to, sources, bins, and which tests have a row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from sae_genomics.validation.enrichment import Enrichment, Keep, Sets
from sae_genomics.validation.enrichment_tests.savage import SAVAGE
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.gene_sets import Collection, GeneSet, membership
from sae_genomics.validation.nulls import annotated
from sae_genomics.validation.rank_scores import RankScores, savage_scores
from sae_genomics.validation.rankings import whole_rankings


def plain_scores(values: np.ndarray) -> np.ndarray:
    """Of one unit: the score of every rank, and the mean of them over tied genes."""
    n = len(values)
    by_rank = np.cumsum(1 / np.arange(n, 0, -1))[::-1]
    lowest, highest = stats.rankdata(-values, "min"), stats.rankdata(-values, "max")
    return np.array([by_rank[int(a) - 1 : int(b)].mean() for a, b in zip(lowest, highest, strict=True)])


def dense(scores: RankScores) -> np.ndarray:
    return scores.matrix.toarray() + scores.tied[:, None]


def lists_of(values: np.ndarray, n_top: int = 10) -> GeneLists:
    """values: [units, genes]; zero for none."""
    scores = savage_scores(sparse.csr_matrix(values))
    top = np.zeros(values.shape, dtype=np.int32)
    for row in range(len(values)):
        start, stop = scores.matrix.indptr[row : row + 2]
        top[row, scores.matrix.indices[start:stop][:n_top]] = 1
    return GeneLists(np.arange(len(values)), sparse.csr_matrix(top), scores)


def one_source(members: np.ndarray, bins: np.ndarray | None = None) -> Sets:
    n_genes, n_terms = members.shape
    bins = np.zeros(n_genes, np.int64) if bins is None else bins
    return Sets(
        sparse.csr_matrix(members.astype(np.int32)), np.zeros(n_terms, np.int64), np.ones((n_genes, 1), bool), bins
    )


def random_values(rng: np.random.Generator, shape: tuple[int, int], share: float, digits: int = 6) -> np.ndarray:
    """Positive values at a share of the genes; few digits give ties."""
    values = np.maximum(np.round(rng.exponential(1, shape), digits), 10.0**-digits)
    return np.where(rng.random(shape) < share, values, 0.0).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0, 1), st.sampled_from([0, 1, 6]))
def test_scores_share_the_mean_of_tied_ranks(seed, n_genes, share, digits):
    rng = np.random.default_rng(seed)
    values = random_values(rng, (3, n_genes), share, digits)
    scores = savage_scores(sparse.csr_matrix(values))
    np.testing.assert_allclose(dense(scores), [plain_scores(row) for row in values], atol=1e-12)
    np.testing.assert_allclose(dense(scores).mean(axis=1), 1.0)
    np.testing.assert_allclose(scores.variance, dense(scores).var(axis=1), atol=1e-11)
    genes = rng.random(n_genes) < 0.6
    genes[0] = True
    np.testing.assert_allclose(
        dense(scores.among(genes))[:, genes], [plain_scores(row[genes]) for row in values], atol=1e-12
    )


def test_nodes_hold_the_whole_population():
    rng = np.random.default_rng(0)
    scores = savage_scores(sparse.csr_matrix(random_values(rng, (4, 5000), 0.3)))
    nodes = scores.nodes()
    bins = rng.integers(0, 7, 5000)
    by_bin = scores.nodes_by_bin(np.bincount(bins), bins)
    for unit, every in enumerate(dense(scores)):
        part = slice(nodes.ptr[unit], nodes.ptr[unit + 1])
        score, n = nodes.score[part], nodes.genes[part]
        assert n.sum() == 5000
        assert len(n) < 150
        assert (np.diff(score) < 0).all()
        np.testing.assert_allclose((score * n).sum(), every.sum())
        np.testing.assert_allclose(((score - 1) ** 2 * n).sum() / 5000, every.var(), rtol=1e-3)
        for number in range(7):
            part = slice(by_bin.ptr[unit * 7 + number], by_bin.ptr[unit * 7 + number + 1])
            found = np.repeat(by_bin.score[part], by_bin.genes[part].astype(int))
            np.testing.assert_allclose(found, np.sort(every[bins == number])[::-1])


@pytest.mark.parametrize(("share", "digits", "size"), [(1.0, 6, 4), (0.4, 6, 30), (0.4, 1, 30), (0.02, 6, 60)])
def test_random_sets_give_p_as_often_as_it_says(share, digits, size):
    rng = np.random.default_rng(7)
    n_genes, n_sets = 2000, 3000
    lists = lists_of(random_values(rng, (20, n_genes), share, digits))
    members = np.zeros((n_genes, n_sets), bool)
    for number in range(n_sets):
        members[rng.choice(n_genes, size, replace=False), number] = True
    found = SAVAGE.run(lists, one_source(members), Keep(0.05))
    assert found.n_tests == 20 * n_sets
    assert (found.p_value <= 0.05).all()
    for level in (0.05, 0.01, 0.001):
        share_below = (found.p_value <= level).sum() / found.n_tests
        assert share_below == pytest.approx(level, rel=0.12 if level > 0.001 else 0.4)


def test_p_agrees_with_permutations_and_sums_are_those_of_the_set():
    rng = np.random.default_rng(1)
    values = random_values(rng, (1, 800), 0.3)
    lists, every = lists_of(values), plain_scores(values[0])
    sums = np.array([every[rng.permutation(800)[:25]].sum() for _ in range(40_000)])
    high = np.argsort(-values[0])[:100]
    for n_high in (4, 6, 8):
        chosen = np.append(
            high[rng.permutation(100)[:n_high]], rng.permutation(np.setdiff1d(np.arange(800), high))[: 25 - n_high]
        )
        members = np.zeros((800, 1), bool)
        members[chosen] = True
        p = SAVAGE.run(lists, one_source(members), Keep(1.0)).p_value[0]
        seen = (sums >= every[chosen].sum()).mean()
        assert seen > 0.0005
        assert p == pytest.approx(seen, rel=0.15)


def test_a_programme_of_low_ranks_is_found_that_a_cut_list_does_not_hold():
    rng = np.random.default_rng(2)
    values = random_values(rng, (1, 3000), 1.0)
    order = np.argsort(-values[0])
    members = np.zeros((3000, 1), bool)
    members[order[40:400:6]] = True  # none among the first 30
    lists = lists_of(values, 30)
    found = SAVAGE.run(lists, one_source(members), Keep(0.05))
    assert found.n_overlap.tolist() == [0]
    assert found.n_top.tolist() == [30]
    assert found.p_value[0] < 1e-12


def frame(tests: Enrichment) -> pd.DataFrame:
    names = ("row", "term", "n_overlap", "n_term", "n_top", "n_background", "p_value", "q_value", "q_source")
    return pd.DataFrame({name: getattr(tests, name) for name in names}).sort_values(["row", "term"], ignore_index=True)


def many_sources(seed: int) -> tuple[GeneLists, Sets, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = random_values(rng, (300, 400), 0.5)
    source = np.sort(rng.integers(0, 3, 40))
    universe = rng.random((400, 3)) < 0.7
    universe[:, 0] = True
    members = (rng.random((400, 40)) < 0.08) & universe[:, source]
    members[:, 5] = np.argsort(np.argsort(-values[3])) < 25  # a planted one
    bins = rng.integers(0, 4, 400)
    source[5] = source[:6].min()
    return lists_of(values), Sets(sparse.csr_matrix(members.astype(np.int32)), source, universe, bins), values


def test_ranks_are_those_among_the_genes_that_the_source_could_have_named():
    lists, sets, values = many_sources(5)
    found = frame(SAVAGE.run(lists, sets, Keep(1.0)))
    assert len(found) == 300 * 40
    for number in range(3):
        named, terms = sets.universe[:, number], np.flatnonzero(sets.source == number)
        alone = GeneLists(lists.unit, lists.matrix[:, named], lists_of(values[:, named]).scores)
        mine = Sets(
            sets.matrix[named][:, terms],
            np.zeros(len(terms), np.int64),
            np.ones((named.sum(), 1), bool),
            sets.bins[named],
        )
        expected = frame(SAVAGE.run(alone, mine, Keep(1.0)))
        got = found[found["term"].isin(terms)].reset_index(drop=True)
        for name in ("n_overlap", "n_term", "n_top", "n_background"):
            np.testing.assert_array_equal(got[name], expected[name])
        np.testing.assert_allclose(got["p_value"], expected["p_value"], rtol=1e-7)
        np.testing.assert_allclose(got["q_source"], expected["q_value"], rtol=1e-7)


def test_what_is_kept_changes_no_q_that_matters():
    lists, sets, _ = many_sources(6)
    whole = frame(SAVAGE.run(lists, sets, Keep(1.0)))
    assert (whole["p_value"] < 1e-8).any()
    np.testing.assert_allclose(whole["q_value"], stats.false_discovery_control(whole["p_value"].to_numpy()), rtol=1e-9)
    some = frame(SAVAGE.run(lists, sets, Keep(0.05, 4)))
    place = whole.sort_values("p_value", kind="stable").groupby("row").cumcount().sort_index()
    wanted = whole[(whole["p_value"] <= 0.05) | (place < 4)]
    both = wanted.merge(some, on=["row", "term"], how="outer", suffixes=("", "_some"))
    few = both["p_value"].isna() | both["p_value_some"].isna()
    assert few.mean() < 0.01  # beyond keep.p the best are chosen by their z
    assert (both.loc[few, ["p_value", "p_value_some"]].min(axis=1) > 0.05).all()
    same = both[~few]
    np.testing.assert_array_equal(same["p_value"], same["p_value_some"])
    small = same["q_value"] < 0.05
    assert small.any()
    np.testing.assert_array_equal(small, same["q_value_some"] < 0.05)
    np.testing.assert_allclose(same["q_value"][small], same["q_value_some"][small], rtol=1e-12)


def test_within_bins_a_set_of_a_favoured_bin_is_nothing():
    rng = np.random.default_rng(3)
    bins = np.repeat(np.arange(10), 100)
    values = (rng.exponential(1, (30, 1000)) * np.exp(0.5 * bins)).astype(np.float32)  # some bins rank higher
    members = np.zeros((1000, 201), bool)
    for number in range(200):
        members[rng.choice(np.arange(800, 1000), 20, replace=False), number] = True
    members[np.argsort(-values[0])[:20], 200] = True
    sets = one_source(members, bins)
    tests, beside = annotated(SAVAGE, lists_of(values), sets, 0.05)
    random = tests.term < 200
    assert (tests.q_value[random] < 0.05).mean() > 0.9  # every such set stands high
    p = beside.p[random]
    assert np.isfinite(p).sum() > 1000
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert (beside.q[random] < 0.05).sum() == 0
    planted = (tests.term == 200) & (tests.row == 0)
    assert beside.q[planted] < 0.01


def test_rankings_are_read_with_symbols_once_and_only_of_the_background():
    symbols = np.array(["A", "B", "a", "C", "X", "D"], object)
    members = membership([Collection("c", (GeneSet("s", "", ("A", "B", "C")),))], np.array(list("ABCD"), object), 1, 9)
    values = pd.DataFrame(
        {"feature": [2, 2, 2, 2, 7, 7, 9], "gene": [0, 1, 2, 4, 3, 5, 4], "value": [1.0, 2.0, 3.0, 9.0, 0.5, 0.5, 1.0]}
    )
    lists = whole_rankings(values, symbols, members, 1)
    assert lists.unit.tolist() == [2, 7]  # 9 has nothing but X, which is not of the background
    by_rank = 1 / np.arange(1, 5)
    score = np.cumsum(by_rank[::-1])[::-1]
    np.testing.assert_allclose(dense(lists.ranking)[0], [score[0], score[1], *[score[2:].mean()] * 2])
    np.testing.assert_allclose(dense(lists.ranking)[1], [*[score[2:].mean()] * 2, *[score[:2].mean()] * 2])
    assert lists.matrix.toarray().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]  # of equal ones the first


def test_no_units_at_all():
    lists = GeneLists(
        np.empty(0, np.int64), sparse.csr_matrix((0, 5), dtype=np.int32), savage_scores(sparse.csr_matrix((0, 5)))
    )
    found = SAVAGE.run(lists, one_source(np.ones((5, 2), bool)), Keep(0.05, 20))
    assert len(found.row) == found.n_tests == 0
