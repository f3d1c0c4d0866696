"""Derivatives along a vector: those of finite differences, and a direction that the model uses stands out from random ones."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import sparse

from sae_genomics.concepts.choosing import Scored, halves
from sae_genomics.concepts.derivatives import Asked, directional, gradients, mean_gradients, means_along
from sae_genomics.concepts.markers import Markers, markers_of_halves
from sae_genomics.concepts.measure import measure
from sae_genomics.concepts.resampling import p_of, random_directions
from sae_genomics.concepts.section import ConceptsConfig
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.tokens import Tokens
from tests.concepts.made_up import N_UNITS, MadeUpItems, label_concept, made_up_items

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


def test_mean_gradients_give_the_means_of_directional() -> None:
    rng = np.random.default_rng(2)
    gradient, concept, group = rng.normal(size=(60, 9)), np.sort(rng.integers(0, 4, 60)), rng.integers(0, 12, 60)
    concept[concept == 2] = 1  # concept 2 has no pair
    gradient[7] = np.nan
    vectors, null = random_directions(4, 9, rng), random_directions(20, 9, rng)
    known = directional(gradient, concept, group, vectors, null)
    mean = mean_gradients(gradient, concept, group, 4)
    assert np.isnan(mean[2]).all()
    found = means_along(mean, [null, null[:5], null, None])
    np.testing.assert_allclose(found[0], known.mean_null[0])
    np.testing.assert_allclose(found[1, :5], known.mean_null[1, :5])
    assert np.isnan(found[1:, 5:]).all()  # concept 1 has five draws, 2 no items, 3 no draws
    np.testing.assert_allclose(np.einsum("cd,cd->c", mean, vectors)[[0, 1, 3]], known.mean[[0, 1, 3]])


def labelled(number: int, grouped: bool, used: float = 0.0) -> MadeUpItems:
    """Items whose units follow from their activations; labels mean nothing, or move activations by `used` along one axis."""
    rng = np.random.default_rng([5, number])
    made = made_up_items(rng, n=240, d=8, n_groups=40 if grouped else None, label_of_groups=grouped)
    if grouped:
        made.x += rng.normal(size=(40, 8))[made.items["group"].str[5:].astype(int).to_numpy()]
    made.x[:, 0] += used * (made.items["label"] == "yes").to_numpy()
    rate = np.exp(0.5 * made.x @ READS)
    made.units = np.stack([rng.multinomial(200, each / each.sum()) for each in rate])
    return made


READS = np.random.default_rng(11).normal(size=(8, N_UNITS))  # what the model predicts of each unit, from activations


def p_of_labels(made: MadeUpItems, number: int, on_training_items: bool = False) -> dict[str, float]:
    """p of shuffled labels and of random concepts for what the model predicts of the label's markers, as the stage makes it."""
    pool, rng = made.pool([label_concept(made)]), np.random.default_rng([6, number])
    rows, concept = pool.rows(pool.named[0]), pool.named[0]
    measured = measure(rows, pool.evidence(rows), ConceptsConfig(bootstraps=100, draws=39, stop_after=10), number)
    assert measured.vector is not None
    held, group = pool.named.heldout_of(concept), pool.named.groups_of(concept)
    truth = concept.item_truth(len(made.x))[:, None]
    counted = (~held if on_training_items else held)[:, None]
    half = halves(Scored(truth, truth == 1, counted, np.unique(group, return_inverse=True)[1]), rng)
    units = markers_of_halves(sparse.csr_matrix(made.units), np.where(counted, truth, -1).astype(np.int8), half)
    asked = np.flatnonzero(held & (truth[:, 0] == 1))[:10]
    gradient = np.stack([READS[:, units[0, 1 - int(half[item, 0])]].mean(axis=1) for item in asked])
    gradient = gradient * rng.uniform(0.5, 1.5, (len(asked), 1)) + 0.1 * rng.normal(size=(len(asked), 8))
    mean = mean_gradients(gradient, np.zeros(len(asked), np.int64), np.unique(group[asked], return_inverse=True)[1], 1)
    size = np.abs(mean @ measured.vector.vector)
    return {
        name: float(p_of(size, np.abs(means_along(mean, [null])))[0]) for name, null in measured.null_vectors.items()
    }


@pytest.mark.parametrize("grouped", [False, True])
def test_p_of_random_labels_is_valid(grouped: bool) -> None:
    p = np.array([list(p_of_labels(labelled(number, grouped), number).values()) for number in range(60)])
    assert (p.max(axis=1) <= 0.05).sum() <= 7  # of 60: 5 % and chance (P < 0.01)
    assert (p[:, 0] <= 0.05).sum() <= 7
    assert 0.35 < p[:, 0].mean() < 0.7
    assert (p[:, 0] <= 0.5).mean() > 0.25  # not large for everything


def test_markers_of_the_items_that_a_vector_was_fitted_on_would_make_any_label_matter() -> None:
    p = [p_of_labels(labelled(number, False), number, on_training_items=True)["shuffled"] for number in range(40)]
    assert np.mean(p) < 0.35


def test_a_label_that_the_predictions_follow_has_a_small_p() -> None:
    for number in range(3):
        assert max(p_of_labels(labelled(number, False, used=2.5), number).values()) <= 0.05


def test_markers_are_asked_of_the_other_half() -> None:
    """Unit 3 is higher with the concept in the one half, unit 5 in the other; each item is asked about the other half's."""
    half = np.tile([0, 1], 20).astype(np.int8)[:, None]
    truth = np.repeat([1, 0], 20).astype(np.int8)[:, None]
    counts = np.full((40, 8), 5)
    counts[(truth[:, 0] == 1) & (half[:, 0] == 0), 3] = 50
    counts[(truth[:, 0] == 1) & (half[:, 0] == 1), 5] = 50
    units = markers_of_halves(sparse.csr_matrix(counts), truth, half)
    markers = Markers(np.arange(100, 140), half, units)
    assert (units[0, 0][0], units[0, 1][0]) == (3, 5)
    np.testing.assert_array_equal(
        markers.asked(0, np.array([100, 100, 101, 101]), np.array([3, 5, 3, 5])), [0, 1, 1, 0]
    )
    assert markers.of(0).tolist() == [3, 5]
    few = np.where(np.arange(40) < 3, 1, 0).astype(np.int8)[:, None]  # one item with it in a half
    assert not markers_of_halves(sparse.csr_matrix(counts), few, half)
    assert not Markers().has(0)
