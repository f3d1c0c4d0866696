"""Derivatives along a vector: those of finite differences, and a direction that the model uses stands out from random ones."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from sae_genomics.concepts.derivatives import Asked, directional, gradients
from sae_genomics.concepts.resampling import p_of, random_directions
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.tokens import Tokens

D, N_WORDS = 12, 7


class Toy:
    """Activations are an embedding; what is predicted of a token is a nonlinear function of its sequence's mean activation."""

    outcome: ClassVar[str] = "value"

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome  # type: ignore[misc]
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(N_WORDS, D, generator=generator)
        self.readout = torch.randn(D, N_WORDS, generator=generator)

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: np.ndarray | None = None) -> Paused:
        return Paused(batch, layer, hook, self.embedding[torch.from_numpy(batch.token.astype(np.int64))], hidden)

    def resume(self, paused: Paused, activations: torch.Tensor | None = None) -> Predictions:
        x = paused.activations if activations is None else activations
        sequence = torch.from_numpy(np.repeat(np.arange(paused.batch.n_items), paused.batch.lengths))
        mean = (
            torch.zeros(paused.batch.n_items, D).index_add_(0, sequence, x)
            / torch.from_numpy(paused.batch.lengths)[:, None]
        )
        logits = torch.tanh(x + mean[sequence]) @ self.readout
        return Predictions(logits if self.outcome == "distribution" else logits[:, 0], None, None)


def tokens(rng: np.random.Generator, n: int) -> Tokens:
    lengths = rng.integers(4, 9, n)
    ptr = np.concatenate([[0], np.cumsum(lengths)])
    total = int(ptr[-1])
    token = rng.integers(0, N_WORDS, total).astype(np.int32)
    return Tokens(
        np.repeat(np.arange(n), lengths), token, token, np.arange(total, dtype=np.int32), np.ones(total, np.float32), np.zeros(total, bool), ptr
    )  # fmt: skip


@pytest.mark.parametrize("outcome", ["value", "distribution"])
def test_gradients_are_those_of_finite_differences(outcome: str) -> None:
    rng = np.random.default_rng(0)
    model, batch = Toy(outcome), tokens(rng, 5)
    target, moved = rng.random(len(batch)) < 0.4, rng.random(len(batch)) < 0.6
    target[batch.item_ptr[4] :] = False  # the last pair has nothing to predict
    pair = np.array([0, 1, 1, 2, 3])  # two windows of one item
    found = gradients(model, Asked(batch, pair, target, moved), 0, "resid_post", 4)  # type: ignore[arg-type]
    assert np.isnan(found[3]).all()
    vector = rng.normal(size=D)
    of_token = np.repeat(pair, batch.lengths)

    def predicted(step: float) -> np.ndarray:
        paused = model.pause(batch, 0, "resid_post", target)
        x = paused.activations.double() + torch.from_numpy(step * np.outer(moved, vector))
        values = model.resume(paused, x.float()).token
        assert values is not None
        if outcome == "distribution":
            values = torch.log_softmax(values, 1)[
                torch.arange(len(batch)), torch.from_numpy(batch.token.astype(np.int64))
            ]
        kept = values.numpy().astype(float) * target
        return np.array([kept[of_token == each].sum() / max(target[of_token == each].sum(), 1) for each in range(3)])

    slope = (predicted(0.01) - predicted(-0.01)) / 0.02
    assert found[:3] @ vector == pytest.approx(slope, abs=2e-3)


def test_a_direction_that_is_used_stands_out_and_one_that_is_not_does_not() -> None:
    """Alike gradients make every direction's derivative one-sided: the share alone would call each of them used."""
    rng = np.random.default_rng(1)
    used = random_directions(1, 32, rng)[0]
    gradient = used + 0.05 * rng.normal(size=(80, 32))
    unused = random_directions(200, 32, rng)
    vectors = np.vstack([used, unused])
    concept = np.repeat([0], 80)
    null = random_directions(99, 32, rng)
    found = directional(gradient, concept, np.arange(80), vectors, null)
    assert found.share[0] == 1
    assert p_of(np.abs(found.mean), np.abs(found.mean_null))[0] == pytest.approx(0.01)
    one_sided = p = 0
    for vector in unused:
        each = directional(gradient, concept, np.arange(80), vector[None], null)
        one_sided += abs(each.share[0] - 0.5) > 0.3
        p += p_of(np.abs(each.mean), np.abs(each.mean_null))[0] <= 0.05
    assert one_sided > 60  # a t-test over items would find them all
    assert p <= 24  # of 200: 5 % and chance


def test_items_of_one_group_count_once() -> None:
    gradient = np.array([[1.0], [1.0], [1.0], [-1.0]])
    found = directional(gradient, np.zeros(4, np.int64), np.array([0, 0, 0, 1]), np.ones((1, 1)), np.ones((2, 1)))
    assert found.share[0] == 0.5
    assert found.mean[0] == 0
    assert found.mean_null.shape == (1, 2)
