"""Regulons: targets, signs and the factor itself among top genes; known pairs among pairs of genes; and what rewiring keeps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.metrics import roc_auc_score

from sae_genomics.artifacts import FEATURE_REGULONS, REGULON_EDGES, REGULON_NULLS
from sae_genomics.validation import regulon_edges
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.regulon_edges import HELD_OUT, TUNING, candidates, gene_rows, half_of, recovery
from sae_genomics.validation.regulons import find, regulons_over
from sae_genomics.validation.rewiring import rewirings
from sae_genomics.validation.task import run_task

from . import test_task
from .test_network import write_edges

planted = test_task.make_run
N_GENES = test_task.N_GENES


def regulons_of(rows: list[tuple[str, int, int, int]], n_genes: int, universe=None, bins=None):
    pairs = pd.DataFrame(rows, columns=["factor", "factor_gene", "target", "sign"])
    symbols = np.array([f"G{gene}" for gene in range(n_genes)], dtype=object)
    everything = np.ones(n_genes, dtype=bool) if universe is None else universe
    return regulons_over(
        pairs, symbols, everything, np.zeros(n_genes, dtype=np.int64) if bins is None else bins, 2, 100
    )


def lists_of(genes: list[list[int]], n_genes: int) -> GeneLists:
    dense = np.zeros((len(genes), n_genes), dtype=np.int32)
    for row, each in enumerate(genes):
        dense[row, each] = 1
    return GeneLists(np.arange(len(genes)) + 5, sparse.csr_matrix(dense))


def test_targets_signs_and_the_factor_itself():
    n = 60
    rows = [("A", 0, target, 1 if target < 16 else -1) for target in range(10, 22)]
    rows += [("A", 0, 22, 0), ("A", 0, 0, 1), ("A", 0, -1, 1), ("A", 0, 10, 1)]  # itself, unknown, and twice
    rows += [("B", -1, 30, 1), ("B", -1, 31, 1), ("SMALL", 1, 5, 1)]
    regulons = regulons_of(rows, n)
    assert regulons.factor.tolist() == ["A", "B"]
    found = find(lists_of([[0, 10, 11, 12, 13, 20, 22, 40, 41], [30, 31, 1, 2, 3]], n), regulons, 1.0)
    tests = found.tests
    at = {(row, term): i for i, (row, term) in enumerate(zip(tests.row, tests.term, strict=True))}
    a, b = at[0, 0], at[1, 1]
    assert (tests.n_overlap[a], tests.n_term[a], tests.n_top[a], tests.n_background[a]) == (6, 13, 9, n)
    assert tests.p_value[a] == pytest.approx(stats.hypergeom.sf(5, n, 13, 9), rel=1e-9)
    assert (found.activated[a], found.repressed[a]) == (4, 1)
    assert found.expected_activated[a] == pytest.approx(5 * 6 / 12)
    assert found.p_sign[a] == pytest.approx(stats.hypergeom.sf(3, 12, 6, 5), rel=1e-9)
    assert found.own[a]
    assert found.own_chance[a] == pytest.approx(9 / n)
    assert not found.own[b]
    assert np.isnan(found.own_chance[b])  # a factor that no list can hold
    assert (found.activated[b], found.repressed[b], found.p_sign[b]) == (2, 0, 1.0)


def test_chance_of_the_factor_is_that_of_its_bin():
    bins = np.repeat([0, 1], 30)
    regulons = regulons_of([("A", 2, target, 0) for target in (40, 41, 42)], 60, bins=bins)
    found = find(lists_of([[0, 1, 3, 40, 41, 42, 43]], 60), regulons, 1.0)
    assert found.own_chance.tolist() == [3 / 30]
    assert found.own.tolist() == [False]
    assert np.isnan(found.p_sign).all()  # no sign is known
    assert np.isnan(found.expected_activated).all()


def test_shuffling_moves_targets_signs_and_factors_together():
    rng = np.random.default_rng(0)
    rows = [("A", 2, target, 1) for target in (40, 41, 42)] + [("B", 3, target, -1) for target in (50, 51)]
    regulons = regulons_of(rows, 60)
    permutation = rng.permutation(60)
    shuffled = regulons.shuffled(permutation)
    # position p has what position permutation[p] had
    for before, after in ((regulons.sets.matrix, shuffled.sets.matrix), (regulons.signs, shuffled.signs)):
        assert (after.toarray() == before.toarray()[permutation]).all()
    assert (permutation[shuffled.gene] == regulons.gene).all()


def test_swaps_keep_every_number_of_partners():
    rng = np.random.default_rng(1)
    n_factors, n_targets = 30, 80
    keys = rng.choice(n_factors * n_targets, 500, replace=False)
    factor, target = keys // n_targets, keys % n_targets
    own = np.where(np.arange(n_factors) < 20, np.arange(n_factors) + 5, -1)
    inside = own[factor] != target
    factor, target = factor[inside], target[inside]
    seen = list(rewirings(factor, target, own, n_targets, 20, [1]))
    for each in seen:
        assert (np.bincount(each, minlength=n_targets) == np.bincount(target, minlength=n_targets)).all()
        assert len(np.unique(factor * n_targets + each)) == len(factor)
        assert (own[factor] != each).all()
    same = [(each == target).mean() for each in seen]
    assert max(same) < 0.5  # mixed from the first one on
    between = [(a == b).mean() for a, b in pairwise(seen)]
    assert max(between) < 0.5


def test_rewiring_reaches_every_network_equally_often():
    """Two factors with two of four targets each, all targets once: six networks."""
    factor, target = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3])
    own = np.array([-1, -1])
    seen = [tuple(sorted(each[:2])) for each in rewirings(factor, target, own, 4, 1200, [2])]
    counts = pd.Series(seen).value_counts()
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_auroc_and_early_precision_of_any_pairs():
    rng = np.random.default_rng(2)
    factor_gene = rng.integers(0, 12, 70)
    target_gene = rng.integers(6, 40, 70)
    pairs = candidates(factor_gene, target_gene)
    assert (pairs.factors[pairs.factor] != pairs.targets[pairs.target]).all()
    assert len(np.unique(pairs.factor * 100 + pairs.target)) == len(pairs.factor)
    dense = np.round(rng.random((40, 5)) * (rng.random((40, 5)) < 0.4), 1)  # ties, and empty rows
    genes = pd.DataFrame(
        [(unit, f"G{gene}", dense[gene, unit], 1.0) for gene in range(40) for unit in range(5)],
        columns=["feature", "gene_symbol", "score", "specificity"],
    )
    rows = gene_rows(genes, np.repeat(np.arange(40), 5), 40, "score")
    found = recovery(rows, pairs)
    length = np.sqrt((dense**2).sum(axis=1, keepdims=True))
    unit_rows = dense / np.where(length > 0, length, 1)
    cosine = np.round(unit_rows[pairs.factors] @ unit_rows[pairs.targets].T, 12)
    usable = pairs.factors[:, None] != pairs.targets[None, :]
    assert found.n_pairs == usable.sum() == pairs.n_pairs

    def brute(factor, target):
        known = np.zeros(cosine.shape, dtype=bool)
        known[factor, target] = True
        auroc = roc_auc_score(known[usable], cosine[usable])
        n = known.sum()
        shares = []
        for _ in range(400):  # ties in random order
            order = np.lexsort((rng.random(usable.sum()), -cosine[usable]))
            shares.append(known[usable][order[:n]].mean())
        return auroc, np.mean(shares) / (n / usable.sum())

    rewired = next(rewirings(pairs.factor, pairs.target, pairs.own, len(pairs.targets), 1, [3]))
    for target in (pairs.target, rewired):
        auroc, ratio = brute(pairs.factor, target)
        assert found.auroc(pairs.factor, target) == pytest.approx(auroc, abs=1e-12)
        assert found.early_precision_ratio(pairs.factor, target) == pytest.approx(ratio, rel=0.06)


def test_strengths_are_made_of_what_they_say():
    genes = pd.DataFrame({"feature": [0, 1, 0], "score": [3.0, 4.0, 7.0], "specificity": [1.0, -2.0, np.nan]})
    place = np.array([0, 0, -1])
    np.testing.assert_allclose(gene_rows(genes, place, 2, "score").toarray(), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(gene_rows(genes, place, 2, "specificity").toarray(), [[1, 0], [0, 0]])
    log = np.log1p([3.0, 4.0])
    np.testing.assert_allclose(gene_rows(genes, place, 2, "log_score").toarray()[0], log / np.sqrt((log**2).sum()))


def test_halves_depend_on_symbols_alone():
    symbols = np.array([f"TF{number}" for number in range(400)], dtype=object)
    halves = half_of(symbols)
    assert (half_of(np.array([symbol.lower() for symbol in symbols[::-1]], dtype=object))[::-1] == halves).all()
    assert 150 < (halves == TUNING).sum() < 250


@pytest.fixture
def with_trrust(planted, tmp_path, monkeypatch):
    """A factor stands among the genes of each planted set, and regulates the others of the set; half of them it represses."""

    def make(**validation):
        run = planted(**validation)
        monkeypatch.setattr(run.config.paths, "databases", tmp_path / "databases")
        rows, rng = [], np.random.default_rng(4)
        for number in range(10):
            for factor in range(20 * number, 20 * number + 3):
                rows += [
                    (f"sym{factor}", f"SYM{target}", np.nan, "1", "regulon", 1 if target % 2 else -1)
                    for target in range(20 * number, 20 * number + 20)
                ]
        for factor in range(100, 104):
            rows += [(f"SYM{factor}", f"SYM{t}", np.nan, "1", "regulon", 0) for t in rng.choice(N_GENES, 12, False)]
        rows += [("UNHEARD", f"SYM{target}", np.nan, "1", "regulon", 1) for target in range(8)]
        write_edges(Path(run.config.paths.databases) / "trrust", rows, directed=True)
        return run

    return make


def test_planted_regulons_are_found_and_nulls_stay_low(with_trrust):
    run = with_trrust()
    run_task(run, 0)
    folder = run.layer_results(2)
    rows = FEATURE_REGULONS.read(folder / FEATURE_REGULONS.file)
    assert (rows["p_value"] <= 0.05).all()
    found = rows[rows["q_matched"] < 0.05]
    for feature in range(10):
        factors = set(found.loc[found["feature"] == feature, "factor"])
        assert {f"SYM{20 * feature + i}" for i in range(3)} <= factors
    row = found[(found["feature"] == 3) & (found["factor"] == "SYM60")].iloc[0]
    genes = row["genes"].split(",")
    assert len(genes) == row["n_overlap"] >= 11
    assert "SYM60" not in genes
    assert all(60 <= int(gene.removeprefix("SYM")) < 80 for gene in genes)
    assert row["n_activated"] == sum(int(gene.removeprefix("SYM")) % 2 for gene in genes)
    assert row["n_activated"] + row["n_repressed"] == row["n_overlap"]
    assert row["n_targets"] == 19
    assert row["p_value"] == pytest.approx(
        stats.hypergeom.sf(row["n_overlap"] - 1, row["n_background"], 19, row["n_top"]), rel=1e-9
    )
    lists = test_task.FEATURE_GENES.read(folder / test_task.FEATURE_GENES.file)
    own = lists[lists["feature"] == 3].set_index("gene_symbol")["rank_specificity"]
    for _, each in rows[rows["feature"] == 3].iterrows():
        if each["factor"] in own.index:
            assert each["factor_rank"] == own[each["factor"]]
        else:
            assert pd.isna(each["factor_rank"])
    assert rows.loc[rows["factor"] == "UNHEARD", "factor_chance"].isna().all()

    nulls = REGULON_NULLS.read(folder / REGULON_NULLS.file)
    first = nulls.iloc[0]
    assert first["source"] == "features"
    assert first["n_pairs"] == len(found)
    assert first["n_found"] == found["feature"].nunique()
    assert first["n_factors"] == found["factor"].nunique()
    assert first["n_own_factor"] == found["factor_rank"].notna().sum()
    assert first["expected_own_factor"] == pytest.approx(found["factor_chance"].sum())
    matched = nulls[nulls["source"] == "matched_genes"]
    assert len(matched) == 3 * 2
    assert matched["n_found"].sum() <= 0.05 * matched["n_units"].sum()
    assert nulls.loc[nulls["source"] == "neurons", "n_found"].max() <= 1


def test_known_pairs_are_recovered_where_units_read_regulons_and_nowhere_else(with_trrust):
    run = with_trrust(rewirings=200)
    run_task(run, 0)
    rows = REGULON_EDGES.read(run.layer_results(2) / REGULON_EDGES.file)
    tuning = rows[rows["factors"] == TUNING]
    assert sorted(tuning.loc[tuning["units"] == "features", "strength"]) == sorted(regulon_edges.STRENGTHS)
    for units in ("features", "neurons"):
        mine = tuning[tuning["units"] == units]
        heldout = rows[(rows["units"] == units) & (rows["factors"] == HELD_OUT)]
        assert heldout["strength"].unique().tolist() == [mine.loc[mine["auroc"].idxmax(), "strength"]]
        assert (heldout["source"] == "rewired").sum() == 200
        assert heldout[["n_factors", "n_targets", "n_pairs", "n_edges"]].nunique().max() == 1
    heldout = rows[rows["factors"] == HELD_OUT].set_index("source")
    features, neurons = heldout[heldout["units"] == "features"], heldout[heldout["units"] == "neurons"]
    assert features.loc["features", "auroc"] > features.loc["rewired", "auroc"].max() + 0.05
    assert (
        features.loc["features", "early_precision_ratio"] > 1.5 * features.loc["rewired", "early_precision_ratio"].max()
    )
    low, high = np.quantile(neurons.loc["rewired", "auroc"], [0.001, 0.999])
    assert low - 0.02 < neurons.loc["neurons", "auroc"] < high + 0.02


def test_without_regulons_the_tables_say_why(planted, monkeypatch, tmp_path):
    run = planted(regulons=[])
    run_task(run, 0)
    for table in (FEATURE_REGULONS, REGULON_NULLS, REGULON_EDGES):
        path = run.layer_results(2) / table.file
        assert table.read(path).empty
        assert table.note(path) == "validation.regulons is empty"
    run = planted()
    monkeypatch.setattr(run.config.paths, "databases", tmp_path / "none")
    run_task(run, 0)
    assert "--only trrust" in FEATURE_REGULONS.note(run.layer_results(2) / FEATURE_REGULONS.file)
