"""Causes of a feature: a linear model whose causes are known, the null's exact p against draws, and a real model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_genomics.cross_layer.attribution import Limits, Step, attribute
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.sae.load import Encoder
from sae_genomics.tokens import Tokens, pointers

D, N_ITEMS, LENGTH = 12, 6, 10


class Linear:
    """A model whose next layer is x @ change, token by token, and what it offers of a family."""

    def __init__(self, x: np.ndarray, change: np.ndarray):
        self.x, self.change = torch.from_numpy(x), torch.from_numpy(change)

    def pause(self, batch: Tokens, layer: int, hook: str) -> Paused:
        rows = (batch.item[:, None] * LENGTH + batch.position[:, None]).ravel()
        return Paused(batch, layer, hook, self.x[torch.from_numpy(rows)])

    def resume(self, paused: Paused, activations=None, *, layers=(), predict=True) -> Predictions:
        x = paused.activations if activations is None else activations
        return Predictions(None, None, None, {layers[0]: x @ self.change})


def tokens() -> Tokens:
    n = N_ITEMS * LENGTH
    item, position = np.divmod(np.arange(n), LENGTH)
    zeros = np.zeros(n, np.int32)
    return Tokens(
        item, zeros, zeros, position.astype(np.int32), np.ones(n, np.float32), position == 0, pointers(np.full(N_ITEMS, LENGTH))
    )  # fmt: skip


def sae(directions: np.ndarray) -> Encoder:
    """Features along orthonormal directions, active where the activation is above 0: jumprelu, no biases."""
    W = torch.from_numpy(directions.astype(np.float32))
    d_sae, zeros = len(W), torch.zeros(len(W))
    return Encoder("jumprelu", W.T.contiguous(), zeros, W, torch.zeros(D), threshold=torch.full((d_sae,), 1e-6))


@pytest.fixture(scope="module")
def linear():
    """Feature 0 of the later layer is fed by features 2 (times 3) and 5 (times 1), feature 1 by 7 alone."""
    rng = np.random.default_rng(0)
    first = np.linalg.qr(rng.standard_normal((D, D)))[0]
    second = np.linalg.qr(rng.standard_normal((D, D)))[0]
    z = rng.lognormal(0, 0.5, (N_ITEMS * LENGTH, D)) * (rng.random((N_ITEMS * LENGTH, D)) < 0.4)
    amount = np.zeros((D, D))
    amount[2, 0], amount[5, 0], amount[7, 1] = 3, 1, 2
    change = first.T @ amount @ second  # from x = z first to z amount second
    model = Linear((z @ first).astype(np.float32), change.astype(np.float32))
    item = np.repeat(np.arange(N_ITEMS), LENGTH)
    return Step(model, tokens(), item, "resid_post", (0, 1), (sae(first), sae(second)), 25), z  # type: ignore[arg-type]


def test_weights_are_what_the_causes_add_and_what_removing_them_takes(linear):
    step, z = linear
    z = z * (np.arange(len(z)) % LENGTH > 0)[:, None]  # special tokens count for nothing
    found = attribute(step, Limits(2, 3, 12, 0))
    edges = found.edges.set_index(["feature_i", "feature_j"])
    for i, j, times in ((2, 0, 3), (5, 0, 1), (7, 1, 2)):
        expected = times * z[:, i].sum() / N_ITEMS
        assert edges.loc[(i, j), "weight"] == pytest.approx(expected, rel=1e-4)
        assert edges.loc[(i, j), "exact"] == pytest.approx(expected, rel=1e-3)
        n_items = int((z[:, i].reshape(N_ITEMS, LENGTH) > 0).any(axis=1).sum())
        assert edges.loc[(i, j), ["n_items", "n_agree"]].tolist() == [n_items, n_items]
    assert edges.loc[(2, 0), "above_null"]
    assert edges.loc[(7, 1), "above_null"]
    assert not edges.loc[
        (5, 0), "above_null"
    ]  # in 12 dimensions many directions are as near to what feature 0 reads, mostly 2
    assert edges.loc[(2, 0), "share"] + edges.loc[(5, 0), "share"] == pytest.approx(1, rel=1e-3)
    others = edges.drop(index=[(2, 0), (5, 0), (7, 1)])
    assert len(others) == 2 * D - 3  # every feature was removed, so each pair has a row
    assert (others["weight"].abs() < 1e-3).all()
    assert not others["above_null"].any()
    assert found.n_checked == 2 * D


def test_p_is_the_share_of_random_directions_and_the_null_one_in_a_hundred(linear):
    step, _ = linear
    late = step.later_features()
    gradient = step.gradients(late, np.array([0]))[0]
    edges = attribute(step, Limits(1, 12, 0, 0)).edges
    rng = np.random.default_rng(1)
    u = rng.standard_normal((20_000, D))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    for row in edges.sample(4, random_state=0).itertuples():
        S = (step.early[:, [row.feature_i]].T @ gradient).ravel() / step.n_items
        drawn = np.abs(u @ S)
        assert (drawn >= abs(row.weight)).mean() == pytest.approx(row.p_value, abs=0.02)
        assert (drawn > row.null).mean() == pytest.approx(0.01, abs=0.003)


def test_batches_change_nothing(linear):
    step, _ = linear
    other = Step(
        step.model,
        tokens(),
        np.repeat(np.arange(N_ITEMS), LENGTH),
        "resid_post",
        (0, 1),
        (step.first, step.second),
        10_000,
    )
    one, two = (
        attribute(each, Limits(2, 3, 4, 0)).edges.sort_values(["feature_j", "feature_i"], ignore_index=True)
        for each in (step, other)
    )
    np.testing.assert_allclose(one["weight"], two["weight"], atol=1e-5)
    np.testing.assert_allclose(one["exact"], two["exact"], atol=1e-4)


def test_silent_layers_have_no_edges(linear):
    step, _ = linear
    silent = sae(np.eye(D))
    silent.threshold = torch.full((D,), 1e6)
    other = Step(
        step.model, tokens(), np.repeat(np.arange(N_ITEMS), LENGTH), "resid_post", (0, 1), (step.first, silent), 25
    )
    found = attribute(other, Limits(2, 3, 4, 0))
    assert len(found.edges) == 0
    assert np.isnan(found.rank_correlation)
