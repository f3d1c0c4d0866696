"""Networks: what is counted, both answers of chance, and the tables of a layer with planted programmes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse, stats

from sae_genomics.artifacts import FEATURE_NETWORK, NETWORK_EDGES, NETWORK_NULLS
from sae_genomics.errors import UserError
from sae_genomics.validation.interactions import Pairs, load_networks
from sae_genomics.validation.listed import nested_bins, permutations_within
from sae_genomics.validation.network import (
    Network,
    beside_draws,
    clusters_of,
    edges_within,
    expected_by_degree,
    network_over,
)
from sae_genomics.validation.normal_form import schema
from sae_genomics.validation.settings import check_settings
from sae_genomics.validation.task import run_task

from . import test_task

planted = test_task.make_run
N_GENES = test_task.N_GENES


def write_edges(folder: Path, rows: list[tuple[str, str, float, str, str, int]], directed: bool = False) -> None:
    """rows: source, target, score, evidence, category, sign."""
    columns = ["source_gene_symbol", "target_gene_symbol", "score", "evidence", "category", "sign"]
    frame = pd.DataFrame(rows, columns=columns).astype({"sign": "int8", "score": float})
    for name in schema.EDGES.names:
        if name not in frame:
            frame[name] = ""
    table = pa.Table.from_pandas(frame[schema.EDGES.names], schema=schema.EDGES, preserve_index=False)
    schema.write_table(folder / schema.EDGES_FILE, table)
    schema.write_source(folder, {"name": folder.name, "directed": directed})


def network_of(pairs: list[tuple[int, int]], n_genes: int, bins: np.ndarray | None = None) -> Network:
    first, second = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    made = network_over(
        Pairs(first, second, np.ones(len(first)), np.zeros(len(first), dtype=np.int8)), np.arange(n_genes),
        np.ones(n_genes, dtype=np.int64), np.ones(n_genes),
    )  # fmt: skip
    return made if bins is None else Network(made.upper, made.degree, bins)


def lists_of(genes: list[list[int]], n_genes: int) -> sparse.csr_matrix:
    dense = np.zeros((len(genes), n_genes), dtype=np.int32)
    for row, each in enumerate(genes):
        dense[row, each] = 1
    return sparse.csr_matrix(dense)


def test_a_pair_counts_once_and_a_gene_is_no_partner_of_itself():
    pairs = Pairs(
        np.array([0, 1, 2, 3, 0], dtype=np.int32), np.array([1, 0, 2, 4, 3], dtype=np.int32),
        np.array([0.7, 0.9, 1.0, 0.8, 0.75]), np.zeros(5, dtype=np.int8),
    )  # fmt: skip
    place = np.array([2, 0, 1, 3, -1])  # the last symbol is no gene of the background
    made = network_over(pairs, place, np.ones(4, dtype=np.int64), np.ones(4))
    assert sorted(zip(*made.upper.nonzero(), strict=True)) == [(0, 2), (2, 3)]
    assert made.upper[0, 2] == 0.9
    assert made.degree.tolist() == [1, 0, 2, 1]


def test_the_configuration_model_is_exact():
    """Against every way to join the halves of a small network's pairs."""
    network = network_of([(0, 1), (0, 2), (0, 3), (2, 3)], 5)
    halves = np.repeat(np.arange(5), network.degree)
    lists = [[0, 1], [0, 2, 3], [0, 1, 2, 3, 4], [1, 4]]

    def joined(rest: list[int]):  # every perfect matching of the halves, each once
        if not rest:
            yield []
        for i in range(1, len(rest)):
            for more in joined(rest[1:i] + rest[i + 1 :]):
                yield [(rest[0], rest[i]), *more]

    ways = list(joined(list(range(len(halves)))))
    assert len(ways) == 105
    expected = [
        np.mean([sum(halves[a] != halves[b] and {halves[a], halves[b]} <= set(each) for a, b in way) for way in ways])
        for each in lists
    ]
    np.testing.assert_allclose(expected_by_degree(lists_of(lists, 5), network), expected, rtol=1e-12)


def test_pairs_and_clusters_within_lists():
    network = network_of([(0, 1), (1, 2), (3, 4), (4, 5), (3, 5), (5, 6), (7, 8)], 10)
    lists = lists_of([[0, 1, 2, 3, 4, 5, 6], [0, 2, 7, 8], [9], [1, 2, 0]], 10)
    within = edges_within(lists, network.upper)
    assert np.bincount(within.row, minlength=4).tolist() == [6, 1, 0, 2]
    assert list(zip(within.first[within.row == 1], within.second[within.row == 1], strict=True)) == [(7, 8)]
    clusters = clusters_of(within, 10)
    assert clusters.row.tolist() == [0] * 7 + [3] * 3
    assert clusters.gene.tolist() == [3, 4, 5, 6, 0, 1, 2, 0, 1, 2]  # the largest first; two genes are no cluster
    assert len(np.unique(clusters.label)) == 3


def test_bins_hold_genes_that_are_alike():
    rng = np.random.default_rng(0)
    degree, tokens, expression = rng.geometric(0.1, 900) - 1, rng.integers(1, 1000, 900), rng.random(900)
    bins = nested_bins([degree, tokens, expression], [5, 3, 2], 20)
    size = np.bincount(bins)
    assert len(size) == 30
    assert size.min() >= 20
    outer = bins // 6
    for low, high in zip(range(4), range(1, 5), strict=True):
        assert degree[outer == low].max() <= degree[outer == high].min()
    for group in range(5):
        middle = bins[outer == group] // 2 % 3
        assert tokens[outer == group][middle == 0].max() <= tokens[outer == group][middle == 1].min()
    assert nested_bins([degree[:30], tokens[:30]], [5, 3], 20).max() == 0
    names = permutations_within(bins, 7, rng)
    assert (bins[names] == bins).all()
    assert (np.sort(names, axis=1) == np.arange(900)).all()
    assert not (names[0] == names[1]).all()


def test_p_of_draws_is_the_share_of_all_possible_lists():
    """One bin of eight genes and lists of three: the draws must agree with all 56 lists."""
    pairs = [(0, 1), (0, 2), (1, 2), (3, 4)]
    network = network_of(pairs, 8, bins=np.zeros(8, dtype=np.int64))
    every = list(combinations(range(8), 3))
    counts = np.array([sum(set(pair) <= set(each) for pair in pairs) for each in every])
    degree = np.bincount(np.ravel(pairs), minlength=8)
    expected = np.array(
        [sum(degree[a] * degree[b] for a, b in combinations(each, 2)) / (degree.sum() - 1) for each in every]
    )
    expected *= counts.mean() / expected.mean()  # as draws have it
    z = (counts - expected) / np.sqrt(expected + 0.5)
    lists = lists_of([[0, 1, 2], [0, 1, 5], [5, 6, 7]], 8)
    drawn = beside_draws(lists, np.array([3, 1, 0]), network, 20_000, [1])
    exact = [(z >= z[every.index(each)] - 1e-9).mean() for each in ((0, 1, 2), (0, 1, 5), (5, 6, 7))]
    assert (
        exact[0] == 4 / 56
    )  # the three genes that are all paired, and the two that have no other partner with any third gene
    error = 4 * np.sqrt(np.array(exact) * (1 - np.array(exact)) / drawn.n_draws)
    assert (np.abs(drawn.p_value - exact) <= error + 1e-12 + 1 / drawn.n_draws).all()
    of_lists = expected[[every.index(each) for each in ((0, 1, 2), (0, 1, 5), (5, 6, 7))]]
    np.testing.assert_allclose(drawn.expected, of_lists, rtol=0.3)


def test_lists_of_matched_genes_have_uniform_p_values():
    """P(p <= alpha) <= alpha where hubs are listed more often, though more draws are made for some lists."""
    rng = np.random.default_rng(3)
    n = 600
    weight = rng.pareto(1.2, n) + 0.1
    ends = rng.choice(n, (4000, 2), p=weight / weight.sum())
    tokens = np.maximum((200 * weight).astype(np.int64), 1)
    pairs = Pairs(*ends.T.astype(np.int32), np.ones(len(ends)), np.zeros(len(ends), dtype=np.int8))
    network = network_over(pairs, np.arange(n), tokens, np.ones(n))
    hubs = rng.choice(n, (400, 20), p=weight / weight.sum())  # genes of many partners are listed more often
    base = lists_of([list(set(each)) for each in hubs], n)
    names = permutations_within(network.bins, base.shape[0], rng)
    lists = sparse.vstack([base[row][:, np.argsort(name)] for row, name in enumerate(names)]).tocsr()
    observed = np.bincount(edges_within(lists, network.upper).row, minlength=lists.shape[0])
    drawn = beside_draws(lists, observed, network, 2_000, [4])
    for alpha in (0.01, 0.05, 0.2, 0.5):
        assert (drawn.p_value <= alpha).sum() <= stats.binom.ppf(0.9995, len(observed), alpha)
    assert set(drawn.n_draws) == {200, 2_000}


def test_lists_that_prefer_hubs_are_not_found():
    """In the bin of the largest hubs, lists prefer the largest of all. They have more pairs than their draws, and no more than by degree."""
    rng = np.random.default_rng(3)
    n = 3000
    weight = rng.pareto(1.3, n) + 0.1
    ends = rng.choice(n, (40_000, 2), p=weight / weight.sum())
    tokens = np.maximum((200 * weight * np.exp(rng.normal(0, 1, n))).astype(np.int64), 1)
    pairs = Pairs(*ends.T.astype(np.int32), np.ones(len(ends)), np.zeros(len(ends), dtype=np.int8))
    network = network_over(pairs, np.arange(n), tokens, np.ones(n))
    lists = lists_of([rng.choice(n, 30, replace=False, p=weight / weight.sum()).tolist() for _ in range(200)], n)
    observed = np.bincount(edges_within(lists, network.upper).row, minlength=lists.shape[0])
    drawn = beside_draws(lists, observed, network, 200, [4])
    assert (drawn.p_value <= 0.05).sum() <= stats.binom.ppf(0.9995, len(observed), 0.05)
    without_degrees = replace(network, degree=np.zeros(n, dtype=np.int64))
    by_pairs_alone = beside_draws(lists, observed, without_degrees, 200, [4])
    assert (by_pairs_alone.p_value <= 0.05).mean() > 0.3


def string_of(run, rng) -> None:
    """Genes of one planted set touch each other; others at random; a channel of experiments in the evidence."""
    rows = []
    for number in range(10):
        genes = range(20 * number, 20 * number + 20)
        for a, b in combinations(genes, 2):
            if rng.random() < 0.5:
                rows.append((f"SYM{a}", f"sym{b}", 0.9, "textmining; experimental 0.800", "functional", 0))
                rows.append((f"SYM{a}", f"SYM{b}", 0.95, "", "physical", 0))
    for a, b in rng.choice(N_GENES, (3000, 2)):
        rows.append((f"SYM{a}", f"SYM{b}", 0.71, "database; experimental 0.100", "functional", 0))
        rows.append((f"SYM{a}", f"SYM{b}", 0.2, "database; experimental 0.000", "functional", 0))
    write_edges(Path(run.config.paths.databases) / "string", rows)


@pytest.fixture
def with_string(planted, tmp_path, monkeypatch):
    def make(**validation):
        run = planted(network_draws=2_000, **validation)
        monkeypatch.setattr(run.config.paths, "databases", tmp_path / "databases")
        string_of(run, np.random.default_rng(5))
        return run

    return make


def test_channels_are_separable(with_string):
    run = with_string()
    (network,) = load_networks("all", Path(run.config.paths.databases), {"string": 0.7})
    assert sorted(network.channels) == ["experimental", "functional", "physical"]
    assert (network.channels["experimental"].score == 0.8).all()
    assert len(network.channels["experimental"].score) == len(network.channels["physical"].score)
    assert len(network.channels["functional"].score) == len(network.channels["physical"].score) + 3000
    assert len(set(network.symbols)) == len(network.symbols)
    assert all(symbol == symbol.upper() for symbol in network.symbols)
    (strict,) = load_networks(["string"], Path(run.config.paths.databases), {"string": 0.93})
    assert sorted(strict.channels) == ["physical"]
    assert set(strict.symbols) == set(network.symbols)  # a weak pair tells as well which genes could be named


def test_planted_programmes_are_found_and_draws_are_not(with_string):
    run = with_string()
    run_task(run, 0)
    folder = run.layer_results(2)
    rows = FEATURE_NETWORK.read(folder / FEATURE_NETWORK.file)
    assert sorted(rows["channel"].unique()) == ["experimental", "functional", "physical"]
    physical = rows[rows["channel"] == "physical"].set_index("feature")
    assert (physical.loc[range(10), "q_value"] < 0.05).all()
    # 12 of 20 genes of a set, of whose pairs half are known; 13 of the genes 200 to 289, of which none is
    first = physical.loc[3]
    assert 20 < first["n_edges"] < 46
    assert first["expected_matched"] < 12
    assert first["ratio"] == pytest.approx((first["n_edges"] + 0.5) / (first["expected_matched"] + 0.5))
    assert first["n_clusters"] == 1
    assert all(60 <= int(gene.removeprefix("SYM")) < 80 for gene in first["clusters"].split(","))
    assert first["largest_cluster"] == len(first["clusters"].split(","))

    edges = NETWORK_EDGES.read(folder / NETWORK_EDGES.file)
    shown = edges[(edges["feature"] == 3) & (edges["channel"] == "physical")]
    assert len(shown) == first["n_edges"]
    assert (shown["score"] == 0.95).all()
    assert (shown["gene_a"] < shown["gene_b"]).all()
    found = rows[rows["q_value"] < 0.05].set_index(["feature", "channel"]).index
    assert set(edges.set_index(["feature", "channel"]).index) == set(found)

    nulls = NETWORK_NULLS.read(folder / NETWORK_NULLS.file)
    own = nulls[(nulls["source"] == "features") & (nulls["channel"] == "physical")].iloc[0]
    assert own["n_found"] == (physical["q_value"] < 0.05).sum()
    assert own["n_units"] == 30
    assert own["n_edges"] == physical["n_edges"].sum()
    drawn = nulls[nulls["source"] == "matched_genes"]
    assert len(drawn) == 2 * 3 * 2  # repeats, channels, features and neurons
    assert drawn["n_found"].sum() <= 0.05 * drawn["n_units"].sum()
    assert (nulls.loc[nulls["source"] == "neurons", "n_found"] <= 1).all()


def test_a_run_gives_the_same_numbers_again(with_string):
    run = with_string()
    run_task(run, 0)
    first = FEATURE_NETWORK.read(run.layer_results(2) / FEATURE_NETWORK.file)
    run_task(run, 0)
    pd.testing.assert_frame_equal(first, FEATURE_NETWORK.read(run.layer_results(2) / FEATURE_NETWORK.file))


def test_without_a_network_the_tables_say_why(planted, monkeypatch, tmp_path):
    run = planted()
    monkeypatch.setattr(run.config.paths, "databases", tmp_path / "none")
    run_task(run, 0)
    for table in (FEATURE_NETWORK, NETWORK_EDGES, NETWORK_NULLS):
        path = run.layer_results(2) / table.file
        assert table.read(path).empty
        assert "--only string" in table.note(path)


def test_a_network_of_other_names_is_told_of(planted, monkeypatch, tmp_path):
    run = planted()
    monkeypatch.setattr(run.config.paths, "databases", tmp_path / "databases")
    write_edges(tmp_path / "databases" / "string", [("A", "B", 0.9, "", "functional", 0)])
    run_task(run, 0)
    assert "data.symbol_key" in FEATURE_NETWORK.note(run.layer_results(2) / FEATURE_NETWORK.file)


@pytest.mark.parametrize(("key", "directed"), list(product(["network", "regulons"], [False, True])))
def test_a_database_of_the_wrong_kind_is_refused(planted, monkeypatch, tmp_path, key, directed):
    run = planted(**{key: ["there"]})
    monkeypatch.setattr(run.config.paths, "databases", tmp_path / "databases")
    with pytest.raises(UserError, match=rf"validation.{key}: there is not in .*--only there"):
        check_settings(run.config)
    write_edges(tmp_path / "databases" / "there", [("A", "B", 0.9, "", "x", 1)], directed=directed)
    if directed is (key == "regulons"):
        check_settings(run.config)
    else:
        other = "network" if key == "regulons" else "regulons"
        with pytest.raises(UserError, match=f"name it in validation.{other}"):
            check_settings(run.config)
