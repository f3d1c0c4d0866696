"""Features of one layer among those of SAEs on an untrained model: planted ones are counted, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.artifacts import PERSISTENCE
from sae_genomics.cross_layer import cost as costs
from sae_genomics.cross_layer.compare import Comparison
from sae_genomics.cross_layer.floor import UntrainedFloor, rows_of_tokens
from sae_genomics.cross_layer.section import CrossLayerConfig
from sae_genomics.cross_layer.untrained import Untrained, chosen_tokens
from sae_genomics.data.plan import Workload
from tests.cross_layer.made_up import activations_of, random_layer, rows_of

N, D = 6000, 20
LEAST = 0.3


@pytest.fixture(scope="module")
def planted():
    """Half of layer 0's features are in the untrained model's layer 1. Five of layer 1's follow the unit alone, as do five in layer 0 of the
    untrained model."""
    rng = np.random.default_rng(0)
    unit = rng.integers(0, 30, N)
    layers = {layer: random_layer(rng, N, D, 0.05) for layer in (0, 1)}
    untrained = {layer: random_layer(rng, N, D, 0.05) for layer in (0, 1)}
    untrained[1][:, : D // 2] = layers[0][:, : D // 2] * rng.lognormal(0, 0.2, (N, D // 2))
    of_unit = (unit[:, None] == np.arange(5)).astype(np.float32)
    layers[1][:, :5] = of_unit * rng.lognormal(0, 0.1, (N, 5))
    untrained[0][:, :5] = of_unit * rng.lognormal(0, 0.1, (N, 5))
    token = np.sort(rng.choice(N, N // 2, replace=False))
    given_ = activations_of(layers, unit)
    made = Untrained(token, {layer: rows_of(x[token]) for layer, x in untrained.items()}, {0: D, 1: D})
    return given_, made, layers, untrained


def test_planted_features_are_found_and_others_are_not(planted):
    given_, made, layers, untrained = planted
    floor = UntrainedFloor(given_, made, 0, 4)
    found = floor.of(0, 1)
    assert found.is_found(LEAST).tolist() == [True] * (D // 2) + [False] * (D - D // 2)
    assert floor.of(1, 1).share(LEAST) == 0.0
    together = np.corrcoef(layers[0][made.token].T, untrained[1][made.token].T)[:D, D:]  # plainly
    np.testing.assert_allclose(found.best, np.maximum(together.max(axis=1), 0), atol=1e-6)


def test_what_says_the_unit_alone_is_no_match(planted):
    given_, made, _, _ = planted
    found = UntrainedFloor(given_, made, 0, 4).of(1, 0)
    assert (found.best[:5] > 0.8).all(), "they correlate"
    assert found.share(LEAST) == 0.0, "and no more than within their unit"
    assert found.by_unit(LEAST) == pytest.approx(5 / D)


def test_the_floor_depends_on_the_seed_alone(planted):
    given_, made, _, _ = planted
    first, again, other = (UntrainedFloor(given_, made, seed, 3).of(0, 1) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.null, again.null)
    assert not np.array_equal(first.null, other.null)


def test_the_table_has_the_share_of_every_pair(planted, tmp_path):
    given_, made, _, _ = planted
    Comparison(given_, made, CrossLayerConfig(), 0, None, lambda steps: None).write(tmp_path)
    table = PERSISTENCE.read(tmp_path / PERSISTENCE.file).set_index(["layer_a", "layer_b"])
    assert table["floor_untrained"].to_dict() == {(0, 1): 0.5, (1, 0): 0.0}
    note = PERSISTENCE.note(tmp_path / PERSISTENCE.file)
    assert "floor_untrained is on 3,000 of the 6,000 sampled tokens" in note
    assert "is empty" not in note


def test_without_such_saes_nothing_is_compared(planted):
    given_, _, _, _ = planted
    assert UntrainedFloor(given_, Untrained.none("why"), 0, 4).of(0, 1) is None


def test_rows_of_some_tokens():
    dense = random_layer(np.random.default_rng(1), 50, 7, 0.4)
    token = np.array([0, 3, 4, 49])
    some = rows_of_tokens(rows_of(dense), token, 7)
    np.testing.assert_array_equal(np.diff(some.indptr), (dense[token] > 0).sum(axis=1))
    np.testing.assert_array_equal(some.value, dense[token][dense[token] > 0])
    np.testing.assert_array_equal(some.feature, np.nonzero(dense[token])[1])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(1, 400))
def test_tokens_are_those_of_whole_items(lengths, wanted):
    item = np.repeat(np.arange(len(lengths)) * 3, lengths)
    token = chosen_tokens(item, wanted)
    taken = np.unique(item[token])
    assert len(token) == np.isin(item, taken).sum(), "all tokens of an item"
    assert len(taken) == max(1, min(len(lengths), int(wanted * len(lengths) / len(item))))
    if len(set(lengths)) == 1:
        assert len(token) <= max(wanted, lengths[0])
    if wanted >= len(item):
        assert len(token) == len(item)


def test_tokens_come_from_all_of_the_items():
    item = np.repeat(np.arange(1000), 5)
    assert np.diff(np.unique(item[chosen_tokens(item, 500)])).max() <= 10


def test_it_costs_nothing_where_it_is_not_asked_for():
    work = Workload(
        n_cells=10_000, n_tokens=20_000_000, shard_stored=np.array([20_000_000]), max_shard_tokens=20_000_000, n_units=20_000,
        n_gene_values=20_000_000, sampled_cells=0, n_layers=12, layers_at_once=1, deepest=12, summed_depth=78, d_model=512, max_length=2048,
        n_parameters=70_000_000, d_sae=4096, k=32, train_tokens=10_000_000, seeds=1, evaluate_tokens=100_000, batch_tokens=16_384,
        item_bytes=2, extract_rate=1e13, train_rate=1e13, top_genes=30, n_cell_types=0, baselines=("neurons",), untrained_cells=1000,
    )  # fmt: skip
    without, with_it = (
        costs.cost(replace(work, baselines=names)) for names in (("neurons",), ("neurons", "untrained"))
    )
    assert without.scratch_bytes == 0
    assert with_it.scratch_bytes == 12 * 20_000 * 512 * 2
    assert with_it.memory_bytes - without.memory_bytes >= 4 * 70_000_000
    assert with_it.seconds > without.seconds
