"""Own targets and matched ones: against loops that do the same one token at a time."""

import numpy as np
import pytest
from scipy import sparse

from sae_genomics.associations.gene_ranking import specificity
from sae_genomics.causal.targets import Fired, Targets, own_units, random_targets, unit_bins


def cells(generator, n_items=6, n_units=40, n_own=5):
    """Items that have some of the units each; the first units are own. Units of one bin are 8 in a row."""
    present = generator.random((n_items, n_units)) < 0.7
    item, unit = np.nonzero(present)
    own = unit < n_own
    return Targets(item, own, ~own, unit // 8, unit, n_items), unit


def plain_difference(targets, change, item):
    """Mean of own minus matched, token by token."""
    rows = [t for t in range(len(targets.item)) if targets.item[t] == item]
    own = [t for t in rows if targets.own[t]]
    control = [t for t in rows if targets.control[t]]
    differences = []
    for t in own:
        alike = [c for c in control if targets.stratum[c] == targets.stratum[t]] or control
        differences.append(change[t] - np.mean([change[c] for c in alike]))
    return np.mean(differences)


def test_own_minus_matched_is_that_of_a_loop_over_tokens():
    generator = np.random.default_rng(0)
    targets, _ = cells(generator, n_own=10)  # own units of two bins; one bin is own alone
    change = generator.standard_normal(len(targets.item))
    own, matched = (targets.per_item(change, weight) for weight in targets.weights())
    expected = [plain_difference(targets, change, item) for item in range(targets.n_items)]
    np.testing.assert_allclose(own - matched, expected, atol=1e-12)
    residual = targets.residuals(change)
    of_own = [residual[targets.own & (targets.item == item)].mean() for item in range(targets.n_items)]
    np.testing.assert_allclose(of_own, expected, atol=1e-12)


def test_weights_of_each_side_sum_to_one_in_every_item():
    targets, _ = cells(np.random.default_rng(1))
    for weight in targets.weights():
        np.testing.assert_allclose(np.bincount(targets.item, weight), 1)


def test_an_item_without_own_or_other_targets_does_not_count():
    item = np.array([0, 0, 1, 1, 2, 2])
    own = np.array([True, False, False, False, True, True])
    targets = Targets(item, own, ~own, np.zeros(6, np.int64), np.arange(6), 3)
    assert targets.usable.tolist() == [True, False, False]
    own_weight, _ = targets.weights()
    assert np.isnan(targets.per_item(np.ones(6), own_weight)).tolist() == [False, True, True]


def test_random_targets_have_the_own_ones_strata_and_never_are_own():
    generator = np.random.default_rng(2)
    targets, unit = cells(generator, n_units=64, n_own=4)
    change = np.where(unit // 8 == 0, 5.0, 0.0)  # all units of the own bin change alike: nothing is left of it
    change[targets.own] = 100.0
    drawn = random_targets(targets, change, 200, generator)
    assert drawn.shape == (6, 200)
    assert np.isfinite(drawn).mean() > 0.9
    np.testing.assert_allclose(drawn[np.isfinite(drawn)], 0, atol=1e-12)


def test_random_targets_spread_as_targets_do():
    generator = np.random.default_rng(3)
    targets, _ = cells(generator, n_items=4, n_units=400, n_own=10)
    change = generator.standard_normal(len(targets.item))
    drawn = random_targets(targets, change, 2000, generator)
    assert abs(drawn.mean()) < 0.05
    # Own targets of an item: about 7 of 10; their mean has the standard deviation 1 / sqrt(7).
    assert drawn.std() == pytest.approx(1 / np.sqrt(7), rel=0.2)


def test_targets_of_one_item_each_are_drawn_in_their_own_item():
    item = np.repeat([0, 1], 20)
    own = np.tile(np.arange(20) < 2, 2)
    targets = Targets(item, own, ~own, np.zeros(40, np.int64), np.arange(40), 2)
    drawn = random_targets(targets, np.where(item == 0, 1.0, 9.0), 50, np.random.default_rng(4))
    assert np.isfinite(drawn).all()
    np.testing.assert_allclose(drawn, 0, atol=1e-12)  # other items' tokens would give 8


def fired(activation, tokens):
    active = (activation > 0).astype(float) * 5
    return Fired(
        sparse.csr_matrix(activation), sparse.csr_matrix(active), np.array(tokens), np.arange(len(tokens)) + 1.0,
        int(np.sum(tokens)),
    )  # fmt: skip


def test_own_units_are_the_most_specific_ones():
    activation = np.array([[50.0, 3.0, 0.0, 9.0], [0.0, 0.0, 7.0, 0.0]])
    found = fired(activation, [100, 100, 100, 100])
    own = own_units(found, [0, 1], 1)
    assert own.tolist() == [[True, False, False, False], [False, False, True, False]]
    both = own_units(found, [0], 4)[0]
    bits = specificity(activation[0], 62.0, 15, np.array([100] * 4), 400)
    assert both.tolist() == (bits > 0).tolist()
    assert both.sum() == 1


def test_a_unit_that_was_seen_too_rarely_is_no_ones_own():
    found = fired(np.array([[50.0, 0.0]]), [2, 100])
    found.n_active.data[:] = 2
    assert not own_units(found, [0], 5).any()


def test_bins_join_units_of_like_detection_and_leave_out_those_never_met():
    tokens = np.concatenate([np.full(100, 10), np.full(100, 1000), [0]])
    bins = unit_bins(fired(np.zeros((1, 201)), tokens))
    assert bins[-1] == -1
    assert (bins[:-1] >= 0).all()
    assert not set(bins[:100]) & set(bins[100:200])
