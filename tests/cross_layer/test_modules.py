"""Modules: planted ones are found again, shuffled tables have none."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from sae_genomics.cross_layer.coactivation import High
from sae_genomics.cross_layer.communities import LEAST_SIZE, by_size, leiden, modularity
from sae_genomics.cross_layer.margins import draws
from sae_genomics.cross_layer.modules import Found, Settings, find_modules

N_FEATURES, SIZES = 90, (12, 9, 6)
SETTINGS = Settings(4096, 19, 5, (0.5, 1.0, 2.0), (1, 2), n_heldout_draws=99)


def _high(fires: np.ndarray) -> High:
    return High(fires, csr_matrix((0, fires.shape[1]), dtype=np.float32), np.zeros(0, np.int64))


def _planted(n_items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Programmes switch whole blocks of features on; items differ in how many features they have at all."""
    generator = np.random.default_rng(seed)
    truth = np.concatenate([np.repeat(np.arange(len(SIZES)), SIZES), np.full(N_FEATURES - sum(SIZES), -1)])
    on = generator.random((n_items, len(SIZES))) < 0.35
    depth = generator.beta(5, 5, n_items)[:, None]
    rate = np.where(truth >= 0, np.where(on[:, truth], 0.75, 0.12), 0.3) * 2 * depth
    return generator.random((n_items, N_FEATURES)) < np.clip(rate, 0, 0.98), truth


def _found(train: np.ndarray, held: np.ndarray) -> Found:
    one, other = (np.zeros(len(each), np.int64) for each in (train, held))
    return find_modules(_high(train), one, _high(held), other, SETTINGS)


def test_planted_modules_are_found_and_hold_on_other_items() -> None:
    (train, truth), (held, _) = _planted(500, 1), _planted(150, 2)
    found = _found(train, held)
    label = np.full(N_FEATURES, -1)
    label[found.features] = found.label()
    assert adjusted_rand_score(truth, label) >= 0.9
    assert found.rows["size"].tolist() == sorted(SIZES, reverse=True)
    assert (found.rows["p_value"] == 0.01).all()
    assert (found.rows["score"] > found.rows["null_max"]).all()
    assert (found.rows["null_mean"].abs() < 0.05).all()
    assert (found.rows["modularity"] > found.rows["modularity_null"]).all()  # few pairs of chance make modules too
    assert found.groups is not None
    assert found.groups.agreement > 0.9


def test_shuffled_tables_have_no_module() -> None:
    """The margins alone, depth among them, are no reason to find anything."""
    train, _ = _planted(500, 3)
    held, _ = _planted(150, 4)
    for number, shuffled in enumerate(draws(train, np.zeros(len(train), np.int64), 3, [5])):
        found = _found(shuffled, held)
        assert len(found.rows) == 0, number
        assert not (found.label() >= 0).any()


def test_modules_that_held_out_items_do_not_show_are_at_chance() -> None:
    train, _ = _planted(500, 6)
    held = next(draws(_planted(150, 7)[0], np.zeros(150, np.int64), 1, [8]))
    found = _found(train, held)
    assert len(found.rows) == len(SIZES)
    assert found.rows["p_value"].min() > 0.02
    assert (found.rows["score"].abs() < 0.4).all()


def test_without_held_out_items_nothing_is_said_of_chance() -> None:
    train, _ = _planted(400, 9)
    rows = _found(train, np.zeros((0, N_FEATURES), bool)).rows
    assert len(rows)
    assert rows["p_value"].isna().all()


def test_groups_are_numbered_by_size() -> None:
    np.testing.assert_array_equal(by_size(np.array([4, 4, 4, 1, 1, 1, 1, 0, 2])), [1, 1, 1, 0, 0, 0, 0, -1, -1])
    assert LEAST_SIZE == 3


def test_modularity_is_that_of_the_formula() -> None:
    first, second = np.array([0, 0, 1, 3, 3, 4, 2]), np.array([1, 2, 2, 4, 5, 5, 3])  # two triangles and a bridge
    label = leiden(6, first, second, np.ones(7), 1.0, 1)
    assert len(set(label.tolist())) == 2
    assert abs(modularity(6, first, second, np.ones(7), label) - (6 / 7 - 0.5)) < 1e-12
