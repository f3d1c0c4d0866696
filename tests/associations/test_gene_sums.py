import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.associations import gene_sums
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.kernels import compiled, pair_table

from .conftest import as_dictionary, blocks, looped_gene_sums


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(blocks(), min_size=1, max_size=4),
    st.sampled_from([0, 24 * 40 * 3, 1 << 30]),
    st.integers(0, 3),
    st.sampled_from([1, 7, 1000, None]),
)
def test_sums_are_those_of_a_loop(batches, dense_limit, seed, features_at_once):
    _, _, n_genes, d_sae = batches[0]
    expected = np.random.default_rng(seed).integers(0, 5, n_genes)
    sums = GeneSums(d_sae, n_genes, expected, dense_limit)
    dense = sums.pairs.dense_rows
    assert len(dense) == min(n_genes, dense_limit // (24 * d_sae))
    rest = np.setdiff1d(np.arange(n_genes), dense)
    assert expected[dense].min(initial=9) >= expected[rest].max(initial=0)
    for block, triples, _, _ in batches:
        sums.add(block, triples)
    pair_blocks = list(sums.by_feature(features_at_once))
    assert_same(as_dictionary(pair_blocks), looped_gene_sums([batch[:2] for batch in batches]))
    assert sum(len(pairs.ptr) - 1 for pairs in pair_blocks) == d_sae
    for pairs in pair_blocks:
        for start, stop in zip(pairs.ptr[:-1], pairs.ptr[1:], strict=True):
            assert (np.diff(pairs.unit[start:stop]) > 0).all()
    tokens = np.concatenate([block.unit for block, *_ in batches])
    np.testing.assert_array_equal(sums.tokens, np.bincount(tokens[tokens >= 0], minlength=n_genes))


def test_a_growing_table_loses_nothing_and_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(pair_table, "_FIRST_CAPACITY", 64)
    rng = np.random.default_rng(0)
    n_tokens, n_genes, d_sae = 300, 50, 200
    block = TokenBlock(
        rng.integers(-1, n_genes, n_tokens).astype(np.int32), rng.random(n_tokens).astype(np.float32),
        np.array([0, n_tokens]), np.array([False]),
    )  # fmt: skip
    token, feature = np.nonzero(rng.random((n_tokens, d_sae)) < 0.3)
    triples = Triples(token, feature.astype(np.int32), rng.random(len(token)).astype(np.float32))
    results = []
    for dense_limit, n_threads in ((0, 1), (0, 4), (1 << 30, 1), (1 << 30, 3)):
        with monkeypatch.context() as patched:
            for module in (compiled, gene_sums):
                patched.setattr(module, "cpu_threads", lambda n_threads=n_threads: n_threads)
            sums = GeneSums(d_sae, n_genes, dense_limit=dense_limit)
            assert len(sums.pairs.tables) == n_threads
            for _ in range(3):
                sums.add(block, triples)
            results.append(as_dictionary(sums.by_feature()))
    assert_same(results[0], looped_gene_sums([(block, triples)] * 3))
    assert results[0] == results[1] == results[2] == results[3]  # to the last bit


def test_a_table_with_no_room_for_one_token_grows_until_it_has(monkeypatch):
    monkeypatch.setattr(pair_table, "_FIRST_CAPACITY", 2)
    block = TokenBlock(np.zeros(1, np.int32), np.ones(1, np.float32), np.array([0, 1]), np.array([False]))
    triples = Triples(np.zeros(90, np.int64), np.arange(90, dtype=np.int32), np.ones(90, np.float32))
    sums = GeneSums(90, 1, dense_limit=0)
    sums.add(block, triples)
    assert len(as_dictionary(sums.by_feature())) == 90


def test_memory_follows_pairs_not_tokens():
    rng = np.random.default_rng(1)
    block = TokenBlock(
        rng.integers(0, 100, 500).astype(np.int32), np.ones(500, np.float32), np.array([0, 500]), np.array([False])
    )
    token = np.repeat(np.arange(500), 8)
    triples = Triples(token, rng.integers(0, 1000, len(token)).astype(np.int32), np.ones(len(token), np.float32))
    sums = GeneSums(1000, 100, dense_limit=0)
    sums.add(block, triples)
    first = sums.n_bytes
    for _ in range(20):
        sums.add(block, triples)
    assert sums.n_bytes == first


def test_triples_are_put_in_order():
    triples = Triples.ordered(np.array([2, 0, 1, 0]), np.array([5, 6, 7, 8]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert triples.token.tolist() == [0, 0, 1, 2]
    assert triples.feature.tolist() == [6, 8, 7, 5]
    assert triples.activation.tolist() == [2.0, 4.0, 3.0, 1.0]


@pytest.mark.parametrize("n_threads", [1, 5])
def test_more_threads_than_genes(n_threads, monkeypatch):
    monkeypatch.setattr(gene_sums, "cpu_threads", lambda: n_threads)
    block = TokenBlock(np.array([0, 1], np.int32), np.array([2, 3], np.float32), np.array([0, 2]), np.array([True]))
    sums = GeneSums(1, 2)
    sums.add(block, Triples(np.array([0, 1]), np.zeros(2, np.int32), np.array([1.5, 0.5], np.float32)))
    assert as_dictionary(sums.by_feature()) == {(0, 0): [3.0, 1.5, 1], (0, 1): [1.5, 0.5, 1]}
