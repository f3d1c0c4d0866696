"""Planted effects through the whole measurement, the screen beside it, and the stage's tables on a small real run."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from sae_genomics import artifacts
from sae_genomics.causal.edits import Edit
from sae_genomics.causal.exact import Clean, exact_effects
from sae_genomics.causal.files import causal_files
from sae_genomics.causal.measure import (
    Firing,
    Layer,
    ablation_and_nulls,
    activation_of,
    measure,
    norms,
    respond_to_doses,
    targets_of,
)
from sae_genomics.causal.passes import changes
from sae_genomics.causal.results import Effect, dose_tables, effect_tables
from sae_genomics.causal.section import CausalConfig
from sae_genomics.causal.settings import check
from sae_genomics.causal.strength import first_order_strength, gradient_of
from sae_genomics.causal.task import run_task, summary_of
from sae_genomics.config import parse_config
from sae_genomics.errors import UserError
from sae_genomics.run import Run
from tests.causal.conftest import N_FEATURES, N_PLANTED, N_UNITS, D, Toy


def layer_of(toy: Toy, draws: int = 6) -> Layer:
    rate, mean = np.linspace(0.01, 0.02, N_FEATURES), np.linspace(1, 2, N_FEATURES)
    return Layer(toy, toy.directions, rate, mean, np.arange(N_UNITS) // 30, draws, 199, 4000)


def measured(toy: Toy, n_items: int = 6, group=None, hidden=False) -> list[Effect]:
    layer, encoder, own = layer_of(toy), toy.encoder(), toy.own()
    effects = []
    batch = toy.batch(n_items, seed=1)
    mask = np.random.default_rng(5).random(len(batch)) < 0.5 if hidden else None
    clean = Clean.of(toy, toy.pause(batch, 1, "resid_post", mask), encoder)
    for feature in range(N_FEATURES):
        firing = Firing(feature, clean, own[feature], activation_of(clean, feature) > 0)
        found = measure(layer, firing, np.random.default_rng(feature))
        effects.append(Effect(found, group, sampled=False, masked=hidden))
    return effects


@pytest.fixture(scope="module")
def tables(toy):
    return effect_tables(measured(toy))


def test_planted_features_act_on_their_own_units_and_null_features_do_not(tables):
    features, _ = tables
    token = features[features["outcome"] == "token"].set_index("feature")
    assert (token["q_value"][:N_PLANTED] <= 0.05).all()
    assert (token["q_value"][N_PLANTED:] > 0.05).all()
    assert (token["specificity"][:N_PLANTED] < 0).all()  # what a feature adds is taken away
    assert (token["specificity_high"][:N_PLANTED] < 0).all()
    # Ablating takes w_j . x of three units by its mean, 1.5 on average; per unit of edit norm.
    assert token["effect_own"][:N_PLANTED].between(-0.8, -0.3).all()
    assert (token["effect_matched"].abs() < 0.1).all()


def test_no_more_null_features_than_promised_are_found_over_many_toys():
    false = 0
    for seed in range(6):
        features, _ = effect_tables(measured(Toy(seed=seed), n_items=5))
        token = features[features["outcome"] == "token"]
        false += int((token["q_value"][N_PLANTED:] <= 0.05).sum())
    assert false <= 0.05 * 6 * (N_FEATURES - N_PLANTED) + 1


def test_p_is_the_largest_of_four_and_all_draws_are_stored(tables):
    features, nulls = tables
    token = features[features["outcome"] == "token"]
    four = token[["p_direction", "p_feature", "p_permuted", "p_targets"]]
    np.testing.assert_array_equal(token["p_value"], four.max(axis=1))
    assert token[four.columns].notna().all().all()
    embedding = features[features["outcome"] == "embedding"]
    assert embedding["p_targets"].isna().all()
    assert embedding["p_value"].notna().all()
    counts = nulls[nulls["outcome"] == "token"].groupby(["feature", "null"]).size().unstack()
    assert (counts[["direction", "feature", "permuted"]] == 6).all().all()
    assert (counts["targets"] == 99).all()


def test_groups_are_the_unit(toy):
    group = np.array([0, 0, 0, 1, 1, 1])
    features, nulls = effect_tables(measured(toy, group=group))
    assert (features["n_groups"] == 2).all()
    assert (features["n_items"] == 6).all()
    assert features["specificity_low"].isna().all()  # of two groups there is no interval
    assert features["specificity"].notna().all()
    assert len(nulls)


def test_hidden_targets_alone_are_looked_at(toy):
    batch_own = toy.own()
    features, _ = effect_tables(measured(toy, hidden=True))
    token = features[features["outcome"] == "token"]
    assert token["masked"].all()
    assert (token["n_own"] <= batch_own.sum(axis=1)[0]).all()
    assert (token["n_own"] > 0).all()
    assert (token["q_value"][:N_PLANTED] <= 0.05).all()


def test_the_nulls_of_an_edit_have_its_norm(toy):
    clean = Clean.of(toy, toy.pause(toy.batch(2, seed=3), 1, "resid_post"), toy.encoder())
    firing = Firing(2, clean, toy.own()[2], activation_of(clean, 2) > 0)
    edits, where = ablation_and_nulls(layer_of(toy), firing, np.random.default_rng(0))
    found_norms = np.zeros((2, len(edits)))

    def gather(found):
        found_norms[found.sequence, found.edit] = found.norm

    exact_effects(clean, edits, gather, batch_tokens=500)
    same = np.ones(len(edits), bool)
    same[where["feature"]] = False
    np.testing.assert_allclose(found_norms[:, same], np.repeat(found_norms[:, :1], same.sum(), axis=1), rtol=1e-4)
    assert (found_norms > 0).all()  # the other features fire in the same items
    z = activation_of(clean, 2).astype(np.float64) * np.linalg.norm(toy.directions[2].astype(np.float64))
    by_hand = np.sqrt(np.add.reduceat(z**2, clean.paused.batch.item_ptr[:-1]))
    np.testing.assert_allclose(found_norms[:, 0], by_hand, rtol=1e-5)
    targets = targets_of(layer_of(toy), firing)
    item_ptr = clean.paused.batch.item_ptr
    np.testing.assert_allclose(norms(changes(clean, edits, 500), targets, item_ptr), found_norms)
    measured = measure(layer_of(toy), firing, np.random.default_rng(0))
    np.testing.assert_array_equal(measured.norm, found_norms[:, 0])
    others = [int(edit.features[0]) for edit in edits[where["feature"]]]
    assert 2 not in others
    assert len(set(others)) == 6


def test_changes_are_those_of_a_pass_by_hand(toy):
    encoder = toy.encoder()
    paused = toy.pause(toy.batch(3, seed=2), 1, "resid_post")
    clean = Clean.of(toy, paused, encoder)
    edited = paused.activations.clone()
    edited -= torch.from_numpy(np.outer(activation_of(clean, 4), toy.directions[4]))
    expected = toy.resume(paused, edited).token - toy.resume(paused).token
    found = changes(clean, [Edit("ablate", np.array([4]))], 200).token
    np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("outcome", ["value", "distribution"])
def test_the_screen_ranks_features_as_exact_effects_do(outcome):
    toy = Toy(outcome)
    encoder = toy.encoder()
    toy.writing *= torch.linspace(0.2, 1.0, N_FEATURES)[:, None]
    paused = toy.pause(toy.batch(40, seed=4), 1, "resid_post")
    screened = first_order_strength(toy, paused, encoder, np.random.default_rng(0))
    clean = Clean.of(toy, paused, encoder)
    layer, exact = layer_of(toy, draws=1), []
    for feature in range(N_FEATURES):
        firing = Firing(feature, clean, toy.own()[feature], activation_of(clean, feature) > 0)
        exact.append(measure(layer, firing, np.random.default_rng(0)).strength)
    planted = slice(0, N_PLANTED)
    assert stats.spearmanr(screened.first_order, exact).statistic > 0.85
    # Linear predictions: the screen is right but for its four draws of signs. A distribution bends.
    tolerance = 0.2 if outcome == "value" else 0.5
    np.testing.assert_allclose(screened.first_order[planted], exact[planted], rtol=tolerance)
    assert (screened.n_items >= 36).all()


def test_a_dose_response_of_a_linear_model_is_a_line_with_the_gradients_slope(toy):
    encoder = toy.encoder()
    clean = Clean.of(toy, toy.pause(toy.batch(4, seed=6), 1, "resid_post"), encoder)
    firing = Firing(1, clean, toy.own()[1], activation_of(clean, 1) > 0)
    found, gradient, n_items = respond_to_doses(layer_of(toy), firing, [-1, 0, 0.5, 1, 2, 8], bound=1e9)
    assert n_items == 4
    assert found.monotonicity == pytest.approx(1)
    assert found.slope == pytest.approx(gradient, rel=1e-3)
    assert found.saturation == pytest.approx(1, rel=1e-3)
    doses, shapes = dose_tables([(1, found, gradient, n_items)])
    assert doses["dose"].tolist() == [-1, 0, 0.5, 1, 2, 8]
    assert not doses["stopped"].any()
    assert len(shapes) == 1
    stopped, _, _ = respond_to_doses(layer_of(toy), firing, [-1, 0, 0.5, 1, 2, 8], bound=1e-6)
    assert stopped.doses.tolist() == [0.5, 1, 2]


def test_the_gradient_is_that_of_the_predictions(toy):
    paused = toy.pause(toy.batch(2, seed=8), 1, "resid_post")
    weights = np.random.default_rng(0).standard_normal(len(paused.batch))
    gradient = gradient_of(toy, paused, weights)
    step = np.random.default_rng(1).standard_normal((len(paused.batch), D)).astype(np.float32)
    moved = toy.resume(paused, paused.activations + torch.from_numpy(step)).token - toy.resume(paused).token
    assert float((gradient * step).sum()) == pytest.approx(float((moved.numpy() * weights).sum()), rel=1e-3, abs=1e-3)


def test_a_summary_without_rows_knows_no_correlation():
    tables = (artifacts.CAUSAL_SCREEN, artifacts.CAUSAL_FEATURES, artifacts.CAUSAL_CURVES)
    summary = summary_of(*(table.schema.empty_table().to_pandas() for table in tables))
    assert summary["screen_rank_correlation"] is None
    assert summary["n_features"] == 0
    assert summary["outcomes"] == []


def test_doses_need_the_one_that_changes_nothing():
    assert CausalConfig(doses=[8, 1, 0]).doses == [0, 1, 8]
    with pytest.raises(ValueError, match=r"causal\.doses takes at least three"):
        CausalConfig(doses=[0, 2, 4])


def test_settings_that_edit_nothing_are_refused():
    config = parse_config(
        {
            "data": {"path": "builtin:pbmc68k_reduced"},
            "causal": {"enabled": True, "features": 0, "sampled_features": 0},
        },
        "test",
    )
    with pytest.raises(UserError, match=r"causal\.features and causal\.sampled_features are both 0"):
        check(Run(config))


def test_the_cost_grows_with_draws():
    few, many = CausalConfig(draws=1), CausalConfig(draws=99)
    assert many.passes > 20 * few.passes


SMALL = {
    "causal__enabled": True,
    "causal__features": 3,
    "causal__sampled_features": 2,
    "causal__items": 4,
    "causal__draws": 2,
}


def test_the_stage_leaves_its_tables_and_they_are_the_same_again(make_run):
    run = make_run(n_cells=24, **SMALL, causal__dose_features=1, causal__target_draws=19, data__heldout_fraction=0.4)
    run_task(run, 0)
    folder = run.layer_results(1)
    assert all(path.exists() for path in causal_files(run, 0))
    features = artifacts.CAUSAL_FEATURES.read(folder / "causal_features.parquet")
    assert set(features["outcome"]) >= {"token", "embedding"}
    assert set(features["masked"]) == {False, True}
    assert features["feature"].nunique() == 5
    assert features.groupby("feature")["sampled"].first().sum() == 2
    assert (features.loc[~features["masked"], "n_items"] <= 4).all()
    assert features["p_value"].notna().any()
    screen = artifacts.CAUSAL_SCREEN.read(folder / "causal_screen.parquet")
    assert len(screen) == 64
    assert screen["exact"].notna().sum() == 5
    top = screen[screen["exact"].notna() & ~screen["sampled"]]
    assert set(top["feature"]) == set(screen.nlargest(3, "first_order")["feature"])
    summary = json.loads((folder / "causal_summary.json").read_text())
    assert summary["n_features"] == 5
    assert summary["outcome"] == "value"
    assert -1 <= summary["screen_rank_correlation"] <= 1
    run_task(run, 0)
    pd.testing.assert_frame_equal(features, artifacts.CAUSAL_FEATURES.read(folder / "causal_features.parquet"))


def test_nothing_held_out_is_a_note_and_no_failure(make_run, capsys):
    run = make_run(n_cells=8, **SMALL, data__heldout_fraction=0.0)
    run_task(run, 0)
    folder = run.layer_results(1)
    assert all(path.exists() for path in causal_files(run, 0))
    assert not len(artifacts.CAUSAL_FEATURES.read(folder / "causal_features.parquet"))
    assert "data.heldout_fraction" in artifacts.CAUSAL_FEATURES.note(folder / "causal_features.parquet")
    assert capsys.readouterr().err.count("causal layer 1: nothing is edited") == 1


def test_a_family_that_cannot_be_edited_is_a_note_and_no_failure(make_run, monkeypatch):
    run = make_run(n_cells=8, **SMALL)
    monkeypatch.setattr("sae_genomics.models.tx1.NativeTx1.outcome", "")
    run_task(run, 0)
    folder = run.layer_results(1)
    assert "cannot go on" in artifacts.CAUSAL_FEATURES.note(folder / "causal_features.parquet")
    assert json.loads((folder / "causal_summary.json").read_text())["outcome"] == ""
