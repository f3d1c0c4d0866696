"""What becomes of planted features: one that lives in layers 2 to 4, one that splits, two that merge, one that follows its unit alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from sae_genomics.cross_layer.correlations import Features, permuted_within
from sae_genomics.cross_layer.fates import fate_table, gain_of_both, step
from sae_genomics.cross_layer.matching import match_layers, null_of
from tests.cross_layer.made_up import rows_of

N = 6000


def fates(layers: dict[int, np.ndarray], unit: np.ndarray, **given: object) -> pd.DataFrame:
    """fates.parquet of dense layers, by layer and feature."""
    rng = np.random.default_rng(9)
    orders = [permuted_within(unit, rng) for _ in range(4)]
    features = {layer: Features.of(rows_of(x), x.shape[1]) for layer, x in layers.items()}
    steps = []
    for a, b in pairwise(sorted(layers)):
        null = null_of(features[a], features[b], orders)
        steps.append(step(features[a], features[b], match_layers(features[a], features[b], null, 3, 0.3), 0.3))
    return fate_table(sorted(layers), features, steps, given.get("again", {})).set_index(["layer", "feature"])


def signals(rng: np.random.Generator, n: int) -> np.ndarray:
    """Independent rare activations: [N, n]."""
    return rng.lognormal(0, 0.5, (N, n)) * (rng.random((N, n)) < 0.03)


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    """Feature 0 lives everywhere, 1 in layers 2 to 4, 2 splits after layer 2, 3 and 4 merge after layer 3, 5 names its unit; 6 is noise."""
    rng = np.random.default_rng(0)
    unit = rng.integers(0, 30, N)
    base = signals(rng, 5)
    state = rng.random(N) < 0.5
    layers = {}
    for layer in range(1, 6):
        x = np.zeros((N, 8))
        x[:, 0] = base[:, 0]
        if 2 <= layer <= 4:
            x[:, 1] = base[:, 1]
        if layer <= 2:
            x[:, 2] = base[:, 2]
        else:
            x[:, 2], x[:, 7] = base[:, 2] * state, base[:, 2] * ~state
        if layer <= 3:
            x[:, 3], x[:, 4] = base[:, 3], base[:, 4]
        else:
            x[:, 3] = base[:, 3] + base[:, 4]
        x[:, 5] = unit == 7
        x[:, 6] = signals(rng, 1)[:, 0]
        layers[layer] = x * rng.lognormal(0, 0.1, x.shape)
    layers[3][:, 5] = unit == 7
    return fates(layers, unit)


def test_a_feature_of_layers_two_to_four_is_born_at_two_and_gone_after_four(planted):
    assert planted.loc[(2, 1), ["fate", "before", "after"]].tolist() == ["born", "born", "persistent"]
    assert planted.loc[(3, 1), "fate"] == "persistent"
    assert planted.loc[(4, 1), ["fate", "before", "after"]].tolist() == ["died", "persistent", "died"]
    assert planted.loc[[(2, 1), (3, 1), (4, 1)], "chain"].nunique() == 1
    assert (1, 1) not in planted.index  # it never fires there
    assert (5, 1) not in planted.index


def test_a_feature_of_all_layers_persists_and_is_one_chain(planted):
    assert planted.loc[[(layer, 0) for layer in range(1, 6)], "fate"].tolist() == ["persistent"] * 5
    assert planted.loc[[(layer, 0) for layer in range(1, 6)], "chain"].nunique() == 1


def test_split_and_merged(planted):
    assert planted.loc[(2, 2), ["after", "n_children"]].tolist() == ["split", 2]
    assert planted.loc[(3, 2), "before"] == planted.loc[(3, 7), "before"] == "split"
    assert planted.loc[(3, 3), "after"] == planted.loc[(3, 4), "after"] == "merged"
    assert planted.loc[(4, 3), ["before", "n_parents"]].tolist() == ["merged", 2]
    assert planted.loc[(4, 3), "after"] == "persistent"


def test_noise_is_born_and_dies_in_every_layer(planted):
    noise = planted.loc[[(layer, 6) for layer in (2, 3, 4)]]
    assert set(noise["before"]) == {"born"}
    assert set(noise["after"]) == {"died"}


def test_a_feature_that_names_its_unit_is_neither_persistent_nor_dead(planted):
    assert set(planted.loc[[(layer, 5) for layer in (2, 3, 4)], "fate"]) == {"unit"}


def test_the_ends_have_no_word_and_what_a_second_seed_finds_is_told():
    rng = np.random.default_rng(1)
    x = signals(rng, 2)
    found = fates({0: x, 3: x}, rng.integers(0, 20, N), again={0: np.array([True, False])})
    assert found.loc[(0, 0), "before"] is None
    assert found.loc[(3, 0), "after"] is None
    assert found.loc[(0, slice(None)), "found_again"].tolist() == [True, False]
    assert found.loc[(3, slice(None)), "found_again"].isna().all()


def test_gain_is_that_of_a_regression_on_both():
    rng = np.random.default_rng(2)
    y, a, b = rng.standard_normal((3, 500))
    a, b = a + y, 0.5 * b + y + 0.5 * a
    r = np.corrcoef([y, a, b])
    design = np.column_stack([a, b, np.ones(500)])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    expected = 1 - residual.var() / y.var() - max(r[0, 1], r[0, 2]) ** 2
    assert gain_of_both(*(np.array([each]) for each in (r[0, 1], r[0, 2], r[1, 2]))) == pytest.approx(expected)
    assert gain_of_both(np.array([0.9]), np.array([0.9]), np.array([1.0])) == 0
