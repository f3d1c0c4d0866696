"""Features without a name: what a second seed finds again, and what clusters them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sae_genomics.cross_layer.novelty import clusters, found_again, paired_correlations, seed_cosines

N_TOKENS, N_ITEMS, N_UNITS = 6000, 60, 40


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, ...]:
    """Two seeds: feature 0 comes back as 3, feature 1 fires on a unit in both, the others are each seed's own."""
    generator = np.random.default_rng(1)
    unit, item = generator.integers(0, N_UNITS, N_TOKENS), np.sort(generator.integers(0, N_ITEMS, N_TOKENS))
    first, second = (generator.gamma(2, 1, (N_TOKENS, 6)) * (generator.random((N_TOKENS, 6)) < 0.05) for _ in range(2))
    shared = generator.gamma(2, 1, N_TOKENS) * (generator.random(N_TOKENS) < 0.05)
    first[:, 0], second[:, 3] = shared, 0.5 * shared + 0.01 * (shared > 0)
    first[:, 1] = second[:, 1] = (unit == 5) * 1.0
    return csr_matrix(first.astype(np.float32)), csr_matrix(second.astype(np.float32)), unit, item


def test_a_feature_that_comes_back_is_above_chance_and_others_are_not(sample: tuple[np.ndarray, ...]) -> None:
    found = found_again(*sample, np.random.default_rng(2))
    assert found.partner[0] == 3
    assert found.correlation[0] > 0.99
    assert found.correlation[0] > found.chance[0] + 0.5
    # a feature that is its unit comes back too, but no more than its unit does
    assert found.partner[1] == 1
    assert found.correlation[1] > 0.99
    assert found.correlation[1] <= found.chance[1]
    assert (found.correlation[2:] < 0.1).all()


def test_correlations_are_those_of_the_formula(sample: tuple[np.ndarray, ...]) -> None:
    first, second = sample[0], sample[1]
    partner = np.array([3, -1, 2, 0, 5, 4])
    found = paired_correlations(first, second, partner)
    for feature, other in enumerate(partner):
        expected = (
            0.0
            if other < 0
            else np.corrcoef(first[:, [feature]].toarray()[:, 0], second[:, [other]].toarray()[:, 0])[0, 1]
        )
        assert found[feature] == pytest.approx(expected, abs=1e-6)


def test_cosines_of_equal_directions_are_above_those_of_random_ones() -> None:
    generator = np.random.default_rng(3)
    theirs = torch.tensor(generator.standard_normal((50, 64)), dtype=torch.float32)
    ours = torch.tensor(generator.standard_normal((40, 64)), dtype=torch.float32)
    ours[7] = 3 * theirs[20]
    partner = np.full(40, -1)
    partner[7], partner[8] = 20, 21
    cosine, chance = seed_cosines(ours, theirs, partner, generator)
    assert cosine[7] == pytest.approx(1.0)
    assert abs(cosine[8]) < chance < 0.8
    assert np.isnan(cosine[0])


def test_candidates_that_share_units_are_one_cluster() -> None:
    sets = [frozenset("ABCDE"), frozenset("ABCDF"), frozenset("XYZ"), frozenset("XYW"), frozenset(), frozenset("Q")]
    found = clusters(sets, 1)
    assert found[0] == found[1] != found[2] == found[3]
    assert len(set(found.tolist())) == 4
    assert len(clusters([], 1)) == 0
