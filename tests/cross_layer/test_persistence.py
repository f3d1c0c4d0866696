"""Persistence between its ceiling and its floor, on made-up layers and through the comparison of all of them."""

from __future__ import annotations

import numpy as np
import pytest

from sae_genomics.artifacts import FATES, MATCHES, PERSISTENCE
from sae_genomics.cross_layer.compare import Comparison
from sae_genomics.cross_layer.persistence import Found, persistence_table, relative
from sae_genomics.cross_layer.section import CrossLayerConfig
from sae_genomics.cross_layer.untrained import Untrained
from tests.cross_layer.made_up import activations_of

N, D = 6000, 20


def test_share_and_floor_by_hand():
    null = np.array([[0.2, 0.50, 0.2, 0.9], [0.2, 0.49, 0.2, 0.9], [0.2, 0.51, 0.6, 0.9], [0.2, 0.50, 0.2, 0.9]])
    found = Found(np.array([0.4, 0.51, 0.1, 1.0]), null, np.array([True, True, True, False]))
    assert found.share(0.35) == pytest.approx(1 / 3)  # the first; the second is no better than chance
    assert found.by_unit(0.35) == pytest.approx(1 / 3)
    assert found.floor(0.35) == pytest.approx((1 / 3) / 4)  # the third in one of four draws
    assert found.is_found(0.35).tolist() == [True, False, False, True]


def test_relative_stands_between_floor_and_ceiling():
    assert relative(0.5, 0.8, 0.2) == pytest.approx(0.5)
    assert np.isnan(relative(0.5, float("nan"), 0.2))
    assert np.isnan(relative(0.5, 0.1, 0.2))


def test_without_a_second_seed_there_is_no_ceiling():
    null = np.full((3, 3), 0.1)
    table = persistence_table([(0, 1, Found(np.full(3, 0.9), null, np.ones(3, bool)))], {}, {}, 0.3)
    assert table["share"].tolist() == [1.0]
    assert table[["ceiling", "relative", "floor_untrained"]].isna().all(axis=None)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Layers 0 to 2 and their second seeds: half of the features persist, three quarters come back with another seed."""
    rng = np.random.default_rng(0)
    signal = rng.lognormal(0, 0.5, (N, 4 * D)) * (rng.random((N, 4 * D)) < 0.03)
    kept, other = D // 2, 3 * D // 4
    layers = {layer: signal[:, layer * D : (layer + 1) * D].copy() for layer in range(3)}
    for layer in (1, 2):
        layers[layer][:, :kept] = layers[0][:, :kept]
    second = {layer: x[:, ::-1].copy() for layer, x in layers.items()}
    for x in second.values():
        x[:, : D - other] = signal[:, 3 * D : 3 * D + D - other]
    given = activations_of(layers, rng.integers(0, 30, N), second)
    folder = tmp_path_factory.mktemp("compared")
    steps: list[float] = []
    directions = np.eye(D, dtype=np.float32)
    Comparison(given, Untrained.none("so it is"), CrossLayerConfig(), 0, lambda layer: directions, steps.append).write(
        folder
    )
    return folder, steps


def test_persistence_of_planted_layers(compared):
    table = PERSISTENCE.read(compared[0] / PERSISTENCE.file)
    assert len(table) == 6  # both ways
    assert table["share"].tolist() == pytest.approx([0.5] * 6)
    assert table["ceiling"].tolist() == pytest.approx([0.75] * 6)
    assert (table["floor_permuted"] < 0.02).all()
    assert table["relative"].tolist() == pytest.approx([0.5 / 0.75] * 6, abs=0.05)
    assert PERSISTENCE.note(compared[0] / PERSISTENCE.file) == "floor_untrained is empty: so it is"


def test_matches_and_fates_are_left_beside_it(compared):
    matches = MATCHES.read(compared[0] / MATCHES.file)
    same = matches[matches["assigned"]]
    assert len(same) == 3 * D // 2
    assert (same["feature_a"] == same["feature_b"]).all()
    assert same["cosine"].tolist() == pytest.approx([1.0] * len(same))
    assert (same["top_units_jaccard"] == 1).all()
    fates = FATES.read(compared[0] / FATES.file)
    assert (fates[fates["layer"] == 1]["fate"] == "persistent").sum() == D // 2
    assert fates["found_again"].mean() == pytest.approx(0.75)
    assert len(compared[1]) == 6  # three pairs, three second seeds
