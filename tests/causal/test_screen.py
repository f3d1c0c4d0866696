"""First-order effects against finite differences of single features, one item at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_genomics.causal.edits import Edit
from sae_genomics.causal.exact import Clean, Effects, exact_effects
from sae_genomics.causal.screen import first_order, rank_correlation, screen, to_check
from tests.causal.small import cells, dense, random_encoder, some_proteins


@pytest.mark.parametrize(("kind", "outcome"), [("cells", "token"), ("cells", "from_item"), ("proteins", "token")])
def test_effects_are_those_of_small_edits(tmp_path, kind: str, outcome: str) -> None:
    model, tokens = cells() if kind == "cells" else some_proteins(tmp_path)
    encoder = random_encoder(model.info.d_model)
    hidden = ~tokens.special & (np.random.default_rng(1).random(len(tokens)) < 0.3)
    paused = model.pause(tokens, 1, "resid_post", hidden)
    weights = np.random.default_rng(2).normal(size=(len(tokens), 2))
    found = first_order(model, paused, encoder, weights, outcome=outcome, batch_tokens=64)
    assert found.shape == (encoder.d_sae, 2)
    step = 0.02
    sums, n_items = np.zeros_like(found), np.zeros(encoder.d_sae)
    checked = np.argsort(-np.abs(found[:, 0]))[:4].tolist()
    for sequence in range(tokens.n_items):
        one = paused.take([sequence])
        rows = slice(tokens.item_ptr[sequence], tokens.item_ptr[sequence + 1])
        z = dense(encoder, one.activations, one.batch.token) * torch.from_numpy(~one.batch.special)[:, None]
        n_items += (z > 0).any(dim=0).numpy()
        for feature in checked:
            change = step * z[:, feature, None] * encoder.W_dec[feature]
            both = [model.resume(one, one.activations + sign * change) for sign in (1, -1)]
            values = [each.token if outcome == "token" else each.from_item for each in both]
            if model.outcome == "distribution":
                own = torch.from_numpy(one.batch.token).long()[:, None]
                values = [value.log_softmax(dim=1).gather(1, own)[:, 0] for value in values]
            slope = (values[0] - values[1]).double().numpy() / (2 * step)
            sums[feature] -= slope @ weights[rows]
    for feature in checked:
        expected = sums[feature] / n_items[feature]
        assert found[feature] == pytest.approx(expected, rel=0.02, abs=0.01 * np.abs(found).max())
    assert (found[n_items == 0] == 0).all()
    assert np.abs(found).max() > 1e-3


def test_batches_add_up_and_windows_of_one_item_count_once(tmp_path) -> None:
    model, tokens = some_proteins(tmp_path)
    encoder = random_encoder(model.info.d_model)
    paused = model.pause(tokens, 1, "resid_post")
    weights = np.ones((len(tokens), 1))
    whole = screen(model, paused, encoder, weights)
    rows = tokens.item_ptr[2]
    parts = [
        screen(model, paused.take([0, 1]), encoder, weights[:rows]),
        screen(model, paused.take([2, 3, 4]), encoder, weights[rows:]),
    ]
    both = parts[0] + parts[1]
    assert both.n_items.tolist() == whole.n_items.tolist()
    assert both.total_items == whole.total_items == 5
    assert both.mean == pytest.approx(whole.mean, rel=1e-3, abs=1e-5)
    assert both.root_mean_square == pytest.approx(whole.root_mean_square, rel=1e-3, abs=1e-5)
    tokens.item[:] = 7  # five windows of one protein
    one = screen(model, paused, encoder, weights)
    assert set(one.n_items.tolist()) <= {0, 1}
    assert one.sums == pytest.approx(whole.sums, rel=1e-3, abs=1e-5)


def test_first_order_and_exact_effects_rank_features_alike() -> None:
    model, tokens = cells()
    encoder = random_encoder(model.info.d_model)
    paused = model.pause(tokens, 1, "resid_post")
    weights = np.random.default_rng(3).normal(size=(len(tokens), 1))
    found = screen(model, paused, encoder, weights)
    features = np.flatnonzero(found.n_items)
    exact = np.zeros(len(features))

    def add(effects: Effects) -> None:
        np.add.at(exact, effects.edit, effects.sums(effects.token * weights[effects.row, 0]))

    edits = [Edit("scale", np.array([feature]), 0.9) for feature in features]
    exact_effects(Clean.of(model, paused, encoder), edits, add, batch_tokens=500)
    exact *= 10 / found.n_items[features]  # a tenth of each feature was taken away
    assert rank_correlation(found.mean[features, 0], exact) > 0.9
    shuffled = np.random.default_rng(0).permutation(exact)
    assert abs(rank_correlation(found.mean[features, 0], shuffled)) < 0.7


def test_rank_correlation() -> None:
    values = np.array([3.0, -1.0, 10.0, 2.0])
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert np.isnan(rank_correlation(values[:2], values[:2]))
    assert np.isnan(rank_correlation(values, np.ones(4)))
    assert rank_correlation(np.append(values, np.nan), np.append(values, 0.0)) == pytest.approx(1)


def test_what_is_checked_exactly() -> None:
    effects = np.array([0.0, -5.0, 1.0, 2.0, np.nan, 0.1, 0.2, 0.3])
    chosen = to_check(effects, 2, 3, seed=0)
    assert chosen[:2].tolist() == [1, 3]
    assert len(chosen) == len(set(chosen.tolist())) == 5
    assert set(chosen[2:].tolist()) <= {2, 5, 6, 7}
    assert to_check(effects, 2, 3, seed=0).tolist() == chosen.tolist()
    assert to_check(np.zeros(4), 2, 3, seed=0).tolist() == []
    assert to_check(effects, 20, 3, seed=0).tolist() == [1, 3, 2, 7, 6, 5]
