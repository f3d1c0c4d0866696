"""Sums of decoder directions: planted ones come back with their weights, and a plain search agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import nnls

from sae_genomics.concepts.decoder_sums import decompose
from sae_genomics.concepts.sparse import best_rank_p, features_of
from sae_genomics.concepts.vectors import ConceptVector


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def plain(target: np.ndarray, atoms: np.ndarray, k: int) -> tuple[list[int], np.ndarray, list[float]]:
    chosen: list[int] = []
    residual, shares, weight = target, [], np.zeros(0)
    for _ in range(k):
        correlation = [-np.inf if j in chosen else atoms[j] @ residual for j in range(len(atoms))]
        best = int(np.argmax(correlation))
        if correlation[best] <= 1e-9:
            break
        chosen.append(best)
        weight = nnls(atoms[chosen].T, target)[0]
        residual = target - atoms[chosen].T @ weight
        shares.append(1 - residual @ residual)
    return chosen, weight, shares


def test_is_a_plain_pursuit_of_every_vector() -> None:
    rng = np.random.default_rng(0)
    atoms, vectors = unit(rng.normal(size=(80, 16))), unit(rng.normal(size=(40, 16)))
    found = decompose(vectors, atoms, 5)
    for row, vector in enumerate(vectors):
        chosen, weight, shares = plain(vector, atoms, 5)
        n = len(chosen)
        assert found.feature[row, :n].tolist() == chosen
        assert (found.feature[row, n:] == -1).all()
        assert found.weight[row, :n] == pytest.approx(weight, abs=1e-6)
        assert found.share[row, :n] == pytest.approx(shares, abs=1e-6)
        assert found.cosine[row, :n] == pytest.approx(atoms[chosen] @ vector)


def test_planted_features_are_found_and_their_weights() -> None:
    rng = np.random.default_rng(1)
    atoms = unit(rng.normal(size=(300, 256)))
    planted = 0.8 * atoms[12] + 0.5 * atoms[87] + 0.3 * atoms[201]
    found = decompose(planted[None], 3 * atoms, 6)  # the length of a direction does not matter
    assert found.feature[0, :3].tolist() == [12, 87, 201]
    assert found.weight[0, :3] * np.linalg.norm(planted) == pytest.approx([0.8, 0.5, 0.3], abs=1e-6)
    assert found.share[0, 2] == pytest.approx(1)


def test_a_vector_against_all_directions_has_no_feature() -> None:
    rng = np.random.default_rng(2)
    atoms = np.abs(unit(rng.normal(size=(20, 8))))
    found = decompose(-np.ones((1, 8)), atoms, 3)
    assert (found.feature == -1).all()
    assert (found.weight == 0).all()
    assert found.share[0] == pytest.approx(np.zeros(3))


def test_p_over_ranks_is_no_smaller_by_chance_than_it_should_be() -> None:
    """Vectors drawn as the null is have p <= 0.05 about one time in twenty, although five ranks are looked at."""
    rng = np.random.default_rng(3)
    atoms = unit(rng.normal(size=(60, 24)))
    shares = [decompose(rng.normal(size=(n, 24)), atoms, 5).share for n in (600, 99)]
    assert (best_rank_p(shares[0], shares[1]) <= 0.05).mean() < 0.1
    planted = decompose(atoms[:10] + 0.05 * rng.normal(size=(10, 24)), atoms, 5).share
    assert (best_rank_p(planted, shares[1]) <= 0.05).all()


def test_a_concept_of_chance_is_carried_no_more_often_than_by_chance() -> None:
    """Vectors without a meaning lie where items differ. Where features lie there too, they explain more of them than of random directions."""
    rng = np.random.default_rng(4)
    atoms = unit(rng.normal(size=(40, 24)))
    rows = rng.normal(size=(3000, 24)) + 3 * rng.normal(size=(3000, 3)) @ atoms[:3]
    drawn = unit(rng.normal(size=(60 + 99, 3)) @ atoms[:3])
    concepts = [
        ConceptVector(f"label:{i}", "label", str(i), vector.astype(np.float32), 0.0)
        for i, vector in enumerate(drawn[:60])
    ]
    null = {each.concept: {"shuffled": drawn[60:].astype(np.float32)} for each in concepts}

    def carried(known: dict[str, Any], vectors: list[ConceptVector] = concepts) -> np.ndarray:
        frame = features_of(vectors, rows, atoms, (0, 0), known)
        return frame.loc[frame["rank"] == 1, "carried"].to_numpy(bool)

    assert carried({}).mean() > 0.3
    assert carried(null).mean() <= 0.1
    planted = np.linalg.lstsq(np.cov(rows.T), atoms[17], rcond=None)[0]  # its pattern is one feature
    own = [ConceptVector("label:x", "label", "x", planted.astype(np.float32), 0.0)]
    assert carried({"label:x": {"shuffled": drawn[60:].astype(np.float32)}}, own).all()
