"""Variance explained at the same number of active components: numbers that are known, and what each method is good at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_genomics.associations.components import of_independent, principal_components
from sae_genomics.cross_layer.variance import (
    Basis,
    basis_errors,
    explained,
    feature_errors,
    layer_variance,
    levels,
)
from sae_genomics.sae.load import Encoder

D, K = 12, 3


def _sparse_rows(n: int, seed: int, atoms: np.ndarray) -> np.ndarray:
    """K of many atoms at a time: what features describe and a basis does not."""
    generator = np.random.default_rng(seed)
    chosen = np.argsort(generator.random((n, len(atoms))), axis=1)[:, :K]
    x = np.zeros((n, D))
    for column in range(K):
        x += generator.uniform(1, 2, n)[:, None] * atoms[chosen[:, column]]
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def atoms() -> np.ndarray:
    generator = np.random.default_rng(0)
    found = generator.standard_normal((30, D)) * 0.2
    found[np.arange(30), np.arange(30) % D] += np.where(np.arange(30) < 15, 1.0, -1.0)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _encoder(atoms: np.ndarray) -> Encoder:
    weights = torch.tensor(atoms, dtype=torch.float32)
    return Encoder("topk", weights.T.contiguous(), torch.zeros(len(atoms)), weights, torch.zeros(D), k=K)


def test_levels_double_up_to_the_active_features() -> None:
    assert levels(1) == [1]
    assert levels(2) == [1, 2]
    assert levels(9) == [1, 2, 4, 8, 9]
    assert len(levels(5000)) == 8
    assert levels(5000)[-1] == 5000


def test_errors_are_those_of_the_plain_sums(atoms: np.ndarray) -> None:
    x, encoder = _sparse_rows(40, 1, atoms), _encoder(atoms)
    token, feature, value = encoder.encode_sparse(x)
    errors = feature_errors(x, encoder, [1, K])
    whole = x - encoder.decode_sparse(token, feature, value, len(x)).numpy()
    np.testing.assert_allclose(errors["features", K], np.square(whole).sum(axis=1), rtol=1e-4)
    dense = np.zeros((len(x), 30), np.float32)
    dense[token, feature] = value
    best = dense.argmax(axis=1)
    alone = x - dense[np.arange(len(x)), best][:, None] * atoms[best]
    np.testing.assert_allclose(errors["features", 1], np.square(alone).sum(axis=1), rtol=1e-4)


def test_all_components_of_a_basis_leave_nothing(atoms: np.ndarray) -> None:
    train, x = _sparse_rows(2000, 2, atoms), _sparse_rows(50, 3, atoms)
    principal = principal_components(train)
    independent, _ = of_independent(principal, train, 1)
    assert independent.directions is not None
    for basis in (
        Basis.of_pca(principal), Basis.of_ica(principal, independent.directions), Basis.random(principal.center, np.random.default_rng(1)),
    ):  # fmt: skip
        errors = basis_errors(x, "any", basis, [1, 4, D])
        assert errors["any", D].max() < 1e-6
        assert errors["any", 1].sum() > errors["any", 4].sum() > 0.1
    fixed = basis_errors(x, "pca", Basis.of_pca(principal), [2], fixed=True)
    free = basis_errors(x, "pca", Basis.of_pca(principal), [2])
    assert (free["pca", 2] <= fixed["pca", 2] + 1e-9).all()
    shown = (x - principal.center) @ principal.directions[:2].T @ principal.directions[:2]
    np.testing.assert_allclose(fixed["pca", 2], np.square(x - principal.center - shown).sum(axis=1), rtol=1e-6)


def test_true_features_explain_more_than_any_basis_and_random_directions_least(atoms: np.ndarray) -> None:
    train, x = _sparse_rows(3000, 4, atoms), _sparse_rows(600, 5, atoms)
    unit = np.repeat(np.arange(60), 10)
    table = layer_variance(train, x, unit, _encoder(atoms), np.random.SeedSequence(1)).set_index(["method", "k"])
    at_k = table.xs(K, level="k")
    shares = at_k["explained_heldout"]
    assert set(shares.index) == {"features", "pca", "pca_per_token", "ica", "random"}
    assert shares["pca_per_token"] > shares["pca"]
    assert shares["random"] < shares[["pca_per_token", "ica"]].max()
    assert (at_k["low"] < shares).all()
    assert (shares < at_k["high"]).all()
    assert table.loc[("features", 1), "explained_heldout"] < shares["features"]


def test_the_interval_is_over_items_not_tokens() -> None:
    generator = np.random.default_rng(6)
    of_item = generator.uniform(0, 1, 8)
    error = np.repeat(of_item, 500)
    few = explained({("any", 1): error}, np.ones(4000), np.repeat(np.arange(8), 500), generator).iloc[0]
    many = explained({("any", 1): error}, np.ones(4000), np.arange(4000), generator).iloc[0]
    assert few["explained_heldout"] == pytest.approx(1 - of_item.mean())
    assert few["high"] - few["low"] > 5 * (many["high"] - many["low"])
