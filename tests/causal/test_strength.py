"""First-order strengths against finite differences of single features, one item at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sae_genomics.causal import strength
from sae_genomics.causal.edits import Edit
from sae_genomics.causal.exact import Clean
from sae_genomics.causal.passes import changes
from sae_genomics.causal.strength import Strength, first_order_strength
from sae_genomics.tokens import counted_tokens
from tests.causal.conftest import N_FEATURES
from tests.causal.small import cells, dense, random_encoder, some_proteins

STEP = 0.02


def by_finite_differences(model, paused, encoder, features) -> np.ndarray:
    """Root mean square over items: [features]. Of values the squared change, of distributions sum_v p_v (change of log p_v)^2."""
    squares, n_items = np.zeros(len(features)), np.zeros(len(features))
    for sequence in range(paused.batch.n_items):
        one = paused.take([sequence])
        counted = torch.from_numpy(counted_tokens(one.batch))
        z = dense(encoder, one.activations, one.batch.token) * torch.from_numpy(~one.batch.special)[:, None]
        for number, feature in enumerate(features):
            if not (z[:, feature] > 0).any():
                continue
            n_items[number] += 1
            change = STEP * z[:, feature, None] * encoder.W_dec[feature]
            with torch.no_grad():
                up, down, here = (
                    model.resume(one, one.activations + sign * change).token.double() for sign in (1, -1, 0)
                )
            if model.outcome == "value":
                slope, weight = (up - down) / (2 * STEP), torch.ones(len(up))
            else:
                slope, weight = (up.log_softmax(1) - down.log_softmax(1)) / (2 * STEP), here.softmax(1)
            squares[number] += float((slope**2 * weight)[counted].sum())
    return np.sqrt(squares / n_items)


@pytest.mark.parametrize("kind", ["cells", "proteins"])
def test_strengths_are_those_of_small_edits(tmp_path, monkeypatch, kind: str) -> None:
    monkeypatch.setattr(strength, "PROBES", 150)  # four leave an error of a third
    model, tokens = cells() if kind == "cells" else some_proteins(tmp_path)
    encoder = random_encoder(model.info.d_model)
    hidden = ~tokens.special & (np.random.default_rng(1).random(len(tokens)) < 0.3)
    paused = model.pause(tokens, 1, "resid_post", hidden)
    found = first_order_strength(model, paused, encoder, np.random.default_rng(0))
    features = np.argsort(-found.first_order)[:6].tolist()
    expected = by_finite_differences(model, paused, encoder, features)
    assert expected.min() > 1e-3
    np.testing.assert_allclose(found.first_order[features], expected, rtol=0.15)
    z = dense(encoder, paused.activations, tokens.token).numpy() * ~tokens.special[:, None]
    active = np.add.reduceat(z > 0, tokens.item_ptr[:-1], axis=0) > 0
    assert found.n_items.tolist() == active.sum(axis=0).tolist()
    assert (found.first_order[found.n_items == 0] == 0).all()


def test_where_one_prediction_per_item_counts_one_probe_is_exact(monkeypatch) -> None:
    monkeypatch.setattr(strength, "PROBES", 1)  # the square of a sign is 1
    model, tokens = cells()
    stored = np.zeros(len(tokens), bool)
    stored[tokens.item_ptr[1:] - 1] = True
    tokens = dataclasses.replace(tokens, stored=stored, unit=np.maximum(tokens.unit, 0))
    assert counted_tokens(tokens).sum() == tokens.n_items
    encoder = random_encoder(model.info.d_model)
    paused = model.pause(tokens, 1, "resid_post")
    found = first_order_strength(model, paused, encoder, np.random.default_rng(0))
    features = np.argsort(-found.first_order)[:6].tolist()
    expected = by_finite_differences(model, paused, encoder, features)
    np.testing.assert_allclose(found.first_order[features], expected, rtol=0.02)


def test_a_linear_models_strengths_are_the_exact_ones(toy, monkeypatch) -> None:
    monkeypatch.setattr(strength, "PROBES", 400)
    paused = toy.pause(toy.batch(5, seed=3), 1, "resid_post")
    clean = Clean.of(toy, paused, toy.encoder())
    exact = changes(clean, [Edit("ablate", np.array([feature])) for feature in range(N_FEATURES)], 4000).token
    squares = np.add.reduceat(exact.astype(np.float64) ** 2, paused.batch.item_ptr[:-1], axis=1)
    found = first_order_strength(toy, paused, toy.encoder(), np.random.default_rng(0))
    assert found.n_items.tolist() == [5] * N_FEATURES
    np.testing.assert_allclose(found.first_order, np.sqrt(squares.mean(axis=1)), rtol=0.1)


def test_the_model_runs_forward_once_for_all_probes(toy, monkeypatch) -> None:
    runs = []
    resume = toy.resume
    monkeypatch.setattr(toy, "resume", lambda *given, **named: runs.append(1) or resume(*given, **named))
    paused = toy.pause(toy.batch(2, seed=3), 1, "resid_post")
    first_order_strength(toy, paused, toy.encoder(), np.random.default_rng(0))
    assert len(runs) == 1


def test_windows_of_one_item_count_once(tmp_path) -> None:
    model, tokens = some_proteins(tmp_path)
    encoder = random_encoder(model.info.d_model)
    apart = first_order_strength(model, model.pause(tokens, 1, "resid_post"), encoder, np.random.default_rng(0))
    assert apart.n_items.max() > 1
    tokens.item[:] = 7  # five windows of one protein
    one = first_order_strength(model, model.pause(tokens, 1, "resid_post"), encoder, np.random.default_rng(0))
    assert set(one.n_items.tolist()) <= {0, 1}
    assert ((one.n_items > 0) == (apart.n_items > 0)).all()


def test_batches_are_joined_by_their_items() -> None:
    parts = [
        Strength(np.array([3.0, 0.0, 1.0]), np.array([1, 0, 2])),
        Strength(np.array([4.0, 0.0, 2.0]), np.array([3, 0, 0])),
    ]
    joined = Strength.joined(parts)
    assert joined.n_items.tolist() == [4, 0, 2]
    assert joined.first_order == pytest.approx([np.sqrt((9 + 3 * 16) / 4), 0, 1])
