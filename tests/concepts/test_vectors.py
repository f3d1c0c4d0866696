"""The solver against scikit-learn, planted directions found again, and vectors as files."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from sae_genomics.concepts.crossval import STRENGTHS, choose_strength, grouped_folds, mean_cosine
from sae_genomics.concepts.measure import measure
from sae_genomics.concepts.scores import GroupDraws, auroc_bounds, aurocs, average_precisions, bounds, weighted_aurocs
from sae_genomics.concepts.solver import balanced, fit_logistic
from sae_genomics.concepts.space import Space
from sae_genomics.concepts.vectors import VECTORS_FILE, ConceptVector, read_facts, read_vectors, write_vectors
from sae_genomics.errors import DamagedArtifact
from tests.concepts.made_up import SETTINGS, label_concept, made_up_items, made_up_spans


def test_the_solver_equals_scikit_learn(rng):
    n, d = 300, 15
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    y = np.column_stack([rng.random(n) < 0.2, x[:, 0] > 1, x[:, 1] + rng.normal(size=n) > 0]).astype(
        float
    )  # the second is separable
    used = np.ones_like(y)
    used[: n // 4, 2] = 0
    weights, penalty = balanced(y, used), np.array([0.1, 0.001, 0.01])
    fit = fit_logistic(x, y, weights, penalty, 1e-8)
    for k in range(3):
        rows = used[:, k] > 0
        theirs = LogisticRegression(C=1 / (n * penalty[k]), tol=1e-12, max_iter=100_000).fit(
            x[rows], y[rows, k], sample_weight=n * weights[rows, k]
        )
        np.testing.assert_allclose(fit.weights[:, k], theirs.coef_[0], rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(fit.intercepts[k], theirs.intercept_[0], rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(weights[:, k].sum(), 1)
    rough = fit_logistic(x.astype(np.float32), y, weights, penalty, 1e-2)
    for k in range(3):
        assert mean_cosine(np.column_stack([rough.weights[:, k], fit.weights[:, k]])) > 0.99


def test_scores_equal_scikit_learn(rng):
    scores = np.round(rng.normal(size=200), 1)  # with ties
    positive = rng.random(200) < 0.3
    weights = np.column_stack([np.ones(200), rng.integers(0, 3, 200)]).astype(float)
    for k in range(2):
        drawn = {"sample_weight": weights[:, k]}
        np.testing.assert_allclose(
            weighted_aurocs(scores, positive, weights)[k], roc_auc_score(positive, scores, **drawn)
        )
        np.testing.assert_allclose(
            average_precisions(scores, positive, weights)[k], average_precision_score(positive, scores, **drawn)
        )
    np.testing.assert_allclose(aurocs(scores[:, None], positive[:, None])[0], roc_auc_score(positive, scores))
    assert np.isnan(aurocs(scores[:, None], np.zeros((200, 1), bool))[0])


def test_pairs_are_compared_within_strata(rng):
    stratum = np.repeat([0, 1, 2], 40)
    positive = rng.random(120) < np.array([0.2, 0.5, 0.8])[stratum]
    scores = rng.normal(size=120) + 10.0 * stratum  # the stratum alone tells
    wins = pairs = 0.0
    for s in range(3):
        a, b = scores[(stratum == s) & positive], scores[(stratum == s) & ~positive]
        wins, pairs = wins + (a[:, None] > b).sum(), pairs + len(a) * len(b)
    np.testing.assert_allclose(weighted_aurocs(scores, positive, np.ones((120, 1)), stratum)[0], wins / pairs)


def test_groups_are_drawn_whole():
    group = np.repeat([3, 8, 9], [2, 5, 1])
    draws = GroupDraws.of(group, 50, 0)
    assert draws.n_groups == 3
    for number in (3, 8):
        assert (draws.weights[group == number] == draws.weights[group == number][0]).all()
    np.testing.assert_array_equal(draws.weights[[0, 2, 7]].sum(axis=0), 3)


def test_intervals_of_few_groups_are_wider(rng):
    draws = rng.normal(0.7, 0.05, 1000)
    plain, few, many = bounds(draws), bounds(draws, 0.7, 4), bounds(draws, 0.7, 10_000)
    np.testing.assert_allclose(plain, many, atol=1e-3)
    factor = np.sqrt(4 / 3) * 3.182 / 1.960
    np.testing.assert_allclose(0.7 - few[0], factor * (0.7 - plain[0]), rtol=1e-3)
    np.testing.assert_allclose(few[1] - 0.7, factor * (plain[1] - 0.7), rtol=1e-3)
    group, positive = np.arange(12) // 2, np.arange(12) < 4
    assert auroc_bounds(1.0, np.ones(50), positive, group)[0] < 0.8  # two groups that are told prove little
    assert np.isnan(bounds(np.full(3, np.nan))).all()


def test_a_planted_direction_is_found(rng):
    made = made_up_items(rng, n_groups=60)
    concept = label_concept(made)
    direction = rng.normal(size=12)
    direction /= np.linalg.norm(direction)
    made.x[concept.items] += 3.5 * direction
    found = made.measure(concept)
    row, vector = found.row, found.vector
    assert vector is not None
    assert row["auroc"] >= 0.95
    assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
    assert row["p_value"] == 0.01
    assert row["n_shuffled"] == row["n_random"] == 99
    assert abs(row["null_shuffled"] - 0.5) < 0.05
    assert abs(row["null_random"] - 0.5) < 0.05
    assert row["beyond_composition"]
    assert row["split_by"] == "group"
    assert row["stability"] > 0.9
    assert row["cosine_means"] > 0.9
    assert row["auprc"] > 0.85 > row["prevalence"]
    assert vector.vector @ direction > 0.95
    np.testing.assert_allclose(np.linalg.norm(vector.vector), 1, rtol=1e-5)
    held = made.items["heldout"].to_numpy()
    yes = (made.items["label"] == "yes").to_numpy()
    np.testing.assert_allclose(roc_auc_score(yes[held], vector.scores(made.x[held])), row["auroc"], atol=1e-3)
    right = (vector.scores(made.x[held]) > 0) == yes[held]
    assert right.mean() > 0.9  # the intercept is in activation space too


def test_a_planted_span_is_found(rng):
    pool, concept, direction = made_up_spans(rng, 4.0)
    rows = pool.rows(concept)
    found = measure(rows, pool.evidence(rows), SETTINGS, 0)
    assert found.row["auroc"] >= 0.95
    assert found.row["p_value"] == 0.01
    assert found.row["beyond_composition"]
    assert abs(found.row["null_random"] - 0.5) < 0.1  # moved spans overlap the true ones now and then
    assert found.vector is not None
    assert found.vector.vector @ direction > 0.95
    names = {each["confound"] for each in found.confounds}
    assert {"composition", "position", "length"} <= names


def test_without_signal_the_auroc_is_a_half():
    rng, areas = np.random.default_rng(5), []
    for _ in range(12):
        made = made_up_items(rng)
        row = made.measure(label_concept(made)).row
        areas.append(row["auroc"])
        assert row["auroc_low"] < 0.6
    assert abs(np.mean(areas) - 0.5) < 0.05


def test_the_strength_is_chosen_where_it_matters(rng):
    x = rng.normal(size=(60, 40)).astype(np.float32)
    positive = x[:, :30].sum(axis=1) + 3 * rng.normal(size=60) > 0
    fold = grouped_folds(positive, np.arange(60), 5, rng)
    chosen = choose_strength(x, positive, fold)
    assert chosen.strength in STRENGTHS
    assert chosen.strength > STRENGTHS[0]  # many columns, few rows
    assert chosen.folds == 5


def test_coordinates_lead_back_to_activations(rng):
    x = rng.normal(size=(200, 6)) * [1, 5, 0.1, 1, 1, 0] + 3  # the last column never varies
    space = Space.of(x)
    placed = space.place(x, np.float64)
    weights = rng.normal(size=placed.shape[1])
    vector, offset = space.direction(weights)
    np.testing.assert_allclose(placed @ weights, x @ vector + offset, atol=1e-8)
    assert vector[5] == 0
    assert Space.of(x, 2).place(x).shape == (200, 2)


def test_vectors_are_read_as_they_were_written(tmp_path):
    written = [
        ConceptVector(f"label:{i}", "label", f"name {i}", np.eye(4, dtype=np.float32)[i], i + 0.5, 2.0)
        for i in range(3)
    ]
    write_vectors(tmp_path, written, 4, {"layer": 2})
    for one, other in zip(written, read_vectors(tmp_path), strict=True):
        assert (one.concept, one.kind, one.name, one.intercept, one.scale) == (
            other.concept, other.kind, other.name, other.intercept, other.scale,
        )  # fmt: skip
        np.testing.assert_array_equal(one.vector, other.vector)
    assert read_facts(tmp_path)["layer"] == 2
    (tmp_path / VECTORS_FILE).write_bytes(b"no tensors")
    with pytest.raises(DamagedArtifact, match=r"concepts\.safetensors cannot be read.*run the stage concepts again"):
        read_vectors(tmp_path)
    write_vectors(tmp_path, [], 4, {})
    assert read_vectors(tmp_path) == []


def test_ties_strata_and_weights_count_as_in_a_loop_over_pairs(rng):
    scores, positive = rng.integers(0, 9, 70).astype(float), rng.random(70) < 0.3
    stratum, weights = rng.integers(0, 5, 70), rng.integers(0, 4, (70, 3)).astype(float)
    positive[stratum == 2] = False  # a stratum without positives, and one without negatives
    positive[stratum == 3] = True
    for of_stratum in (stratum, None):
        wins, pairs = np.zeros(3), np.zeros(3)
        for i in np.flatnonzero(positive):
            for j in np.flatnonzero(~positive):
                if of_stratum is None or stratum[i] == stratum[j]:
                    weight = weights[i] * weights[j]
                    pairs += weight
                    wins += weight * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
        np.testing.assert_array_equal(weighted_aurocs(scores, positive, weights, of_stratum), wins / pairs)
    assert np.isnan(weighted_aurocs(scores, np.zeros(70, bool), weights)).all()
    assert np.isnan(weighted_aurocs(scores, positive, np.zeros((70, 2)))).all()


def test_aurocs_of_columns_with_ties_are_those_of_ranks(rng):
    scores, positive = rng.integers(0, 30, (200, 12)).astype(np.float32), rng.random((200, 12)) < 0.2
    known = [roc_auc_score(positive[:, column], scores[:, column]) for column in range(12)]
    np.testing.assert_allclose(aurocs(scores, positive), known, rtol=1e-14)
    scores[3, 4] = np.nan
    assert np.flatnonzero(np.isnan(aurocs(scores, positive))).tolist() == [4]
