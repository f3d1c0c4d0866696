"""`causal.ablation`: what an ablated feature becomes, in the exact effects, their nulls and the screen, each written anew with dense arrays."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from sae_genomics import artifacts
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.causal import strength
from sae_genomics.causal.ablation import Ablation
from sae_genomics.causal.edits import Edit
from sae_genomics.causal.encoded import encode
from sae_genomics.causal.exact import Clean, exact_effects
from sae_genomics.causal.measure import Firing, Layer, ablation_and_nulls, activation_of, measure
from sae_genomics.causal.statistics import FeatureStatistics, feature_statistics
from sae_genomics.causal.stored import fired_on, replacing_values
from sae_genomics.causal.strength import first_order_strength
from sae_genomics.causal.task import run_task
from sae_genomics.owner import is_ignored
from sae_genomics.sae.load import load_encoder
from tests.associations.conftest import make_run  # noqa: F401  (a fixture)
from tests.causal.conftest import N_FEATURES, N_UNITS, Toy
from tests.causal.small import D_SAE, K, dense, random_encoder

SMALL = {
    "causal__features": 3, "causal__sampled_features": 2, "causal__items": 4, "causal__draws": 2, "causal__dose_features": 1,
    "causal__target_draws": 19, "data__heldout_fraction": 0.4,
}  # fmt: skip


def training_values(toy: Toy) -> FeatureStatistics:
    """Of eight items that are not those looked at."""
    paused = toy.pause(toy.batch(8, seed=40), 1, "resid_post")
    batch = paused.batch
    return feature_statistics([encode(toy.encoder(), paused.activations, batch.token, ptr=batch.item_ptr)], N_FEATURES)


def layer_of(toy: Toy, ablation: Ablation) -> Layer:
    rate, mean = np.linspace(0.01, 0.02, N_FEATURES), np.linspace(1, 2, N_FEATURES)
    return Layer(toy, toy.directions, rate, mean, np.arange(N_UNITS) // 30, 4, 19, 4000, ablation)


@pytest.mark.parametrize("replacement", ["mean", "resample"])
def test_the_effect_is_that_of_the_replaced_activation(toy, replacement) -> None:
    """Own targets of a planted feature move by what its replacement adds, not by what taking it out would."""
    values = training_values(toy)
    ablation = Ablation(replacement, values, seed=3)
    clean = Clean.of(toy, toy.pause(toy.batch(5, seed=1), 1, "resid_post"), toy.encoder())
    feature = 2
    firing = Firing(feature, clean, toy.own()[feature], activation_of(clean, feature) > 0)
    found = measure(layer_of(toy, ablation), firing, np.random.default_rng(0))
    z, unit, ptr = activation_of(clean, feature), clean.paused.batch.unit, clean.paused.batch.item_ptr
    at = np.flatnonzero(z > 0)
    if replacement == "mean":
        new = np.array([values.mean(np.array([feature]), np.array([unit[row]]))[0] for row in at])
    else:
        new = values.draw(np.full(len(at), feature), unit[at].astype(np.int64), seed=3)
    change = np.zeros(len(z))
    change[at] = new - z[at]
    per_item = [change[start:stop] for start, stop in pairwise(ptr.tolist())]
    np.testing.assert_allclose(found.norm, [np.linalg.norm(each) for each in per_item], rtol=1e-5)
    # The toy's own targets have the sum over the three units that are read, by three.
    expected = np.array([each.sum() / 3 for each in per_item]) / found.norm
    np.testing.assert_allclose(found.outcomes[0].own, expected, atol=0.05)
    taken_out = measure(layer_of(toy, Ablation()), firing, np.random.default_rng(0))
    assert (np.abs(found.outcomes[0].own * found.norm) < np.abs(taken_out.outcomes[0].own * taken_out.norm)).all()


@pytest.mark.parametrize("replacement", ["mean", "resample"])
def test_nulls_of_a_replacement_have_its_norm(toy, replacement) -> None:
    ablation = Ablation(replacement, training_values(toy), seed=3)
    clean = Clean.of(toy, toy.pause(toy.batch(3, seed=3), 1, "resid_post"), toy.encoder())
    firing = Firing(2, clean, toy.own()[2], activation_of(clean, 2) > 0)
    edits, where = ablation_and_nulls(layer_of(toy, ablation), firing, np.random.default_rng(0))
    found = np.zeros((3, len(edits)))

    def gather(effects):
        found[effects.sequence, effects.edit] = effects.norm

    exact_effects(clean, edits, gather, batch_tokens=500, statistics=ablation.statistics)
    same = np.ones(len(edits), bool)
    same[where["feature"]] = False
    np.testing.assert_allclose(found[:, same], np.repeat(found[:, :1], same.sum(), axis=1), rtol=1e-4)
    assert (found > 0).all()
    assert all(edit.replacement == replacement for edit in edits)


@pytest.mark.parametrize("replacement", ["mean", "resample"])
def test_the_screen_measures_the_same_edit(toy, monkeypatch, replacement) -> None:
    """Predictions are linear here: first-order strengths of many probes are the exact ones, of z' - z and not of -z."""
    monkeypatch.setattr(strength, "PROBES", 400)
    ablation = Ablation(replacement, training_values(toy), seed=3)
    paused = toy.pause(toy.batch(5, seed=3), 1, "resid_post")
    clean = Clean.of(toy, paused, toy.encoder())
    active, ptr = clean.encoded, paused.batch.item_ptr
    left = ablation.left_of(active)
    exact = []
    for feature in range(N_FEATURES):
        at = active.of(np.array([feature]))
        moved = paused.activations.clone()
        moved[active.token[at]] += torch.from_numpy(np.outer(left[at] - active.activation[at], toy.directions[feature]))
        change = (toy.resume(paused, moved).token - clean.predictions.token).numpy().astype(np.float64)
        exact.append(np.sqrt(np.add.reduceat(change**2, ptr[:-1]).mean()))
    found = first_order_strength(toy, paused, toy.encoder(), np.random.default_rng(0), ablation)
    np.testing.assert_allclose(found.first_order, exact, rtol=0.1)
    to_zero = first_order_strength(toy, paused, toy.encoder(), np.random.default_rng(0))
    assert (found.first_order < 0.8 * to_zero.first_order).all()


def test_an_unseen_unit_draws_from_all_tokens_of_the_feature() -> None:
    encoder = random_encoder(24)
    x, units = torch.randn(400, 24, generator=torch.Generator().manual_seed(0)), np.arange(400) % 5
    values = feature_statistics([encode(encoder, x, units)], D_SAE)
    z = dense(encoder, x, units)[:, 7].numpy()
    drawn = values.draw(np.full(20_000, 7), np.full(20_000, 99), seed=1)
    assert (drawn > 0).mean() == pytest.approx((z > 0).mean(), abs=0.02)
    assert drawn.mean() == pytest.approx(z.mean(), rel=0.1)
    np.testing.assert_allclose(np.unique(drawn[drawn > 0]), np.unique(z[z > 0]), rtol=1e-5)
    assert K < D_SAE


def test_values_of_training_items_are_those_of_a_loop(make_run) -> None:  # noqa: F811
    """Mean per unit, zeros among them, over the stored tokens of training items alone."""
    run = make_run(n_cells=24, **SMALL)
    encoder, units = load_encoder(run.sae_dir(1), "cpu"), run.kind.read_units(run)
    training = np.flatnonzero(~run.kind.read_items(run, ["heldout"])["heldout"].to_numpy(bool))
    values = replacing_values(run, 1, encoder, units, training, fired_on(run, 1, encoder, units, training))
    sums: dict[tuple[int, int], float] = {}
    counts: dict[int, int] = {}
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        start, _ = run.shard_items(shard)
        with open_activations(run.activations_file(1, shard)) as file:
            for item in range(len(tokens.item_ptr) - 1):
                if start + item not in training:
                    continue
                span = slice(int(tokens.item_ptr[item]), int(tokens.item_ptr[item + 1]))
                x = torch.from_numpy(file.rows(span.start, span.stop).astype(np.float32))
                hidden = (x - encoder.b_dec) @ encoder.W_enc + encoder.b_enc
                top, index = hidden.topk(encoder.k, dim=1)
                z = torch.zeros_like(hidden).scatter(1, index, top.clamp(min=0)).numpy()
                for row, token in zip(z, tokens.token[span], strict=True):
                    if not np.isin(token, units.token):
                        continue
                    counts[int(token)] = counts.get(int(token), 0) + 1
                    for feature in np.flatnonzero(row):
                        key = int(feature), int(token)
                        sums[key] = sums.get(key, 0.0) + float(row[feature])
    assert len(sums) > 50
    feature, token = (np.array(each) for each in zip(*sums, strict=True))
    expected = [total / counts[token] for (_, token), total in sums.items()]
    np.testing.assert_allclose(values.mean(feature, token), expected, rtol=1e-4)


def test_the_stage_says_what_an_ablated_feature_becomes(make_run) -> None:  # noqa: F811
    """With one run's files: the setting changes the numbers, and its default leaves the run what it was."""
    tables = {}
    for ablation in ("zero", "mean", "resample"):
        run = make_run(n_cells=24, **SMALL, causal__ablation=ablation)
        assert is_ignored(run, "causal.ablation", ablation) == (ablation == "zero")
        run_task(run, 0)
        folder = run.layer_results(1)
        tables[ablation] = artifacts.CAUSAL_FEATURES.read(folder / "causal_features.parquet")
        summary = json.loads((folder / "causal_summary.json").read_text())
        assert summary["ablation"] == ablation
        assert summary["n_features"] == 5
    same = set(tables["zero"]["feature"]) & set(tables["mean"]["feature"])
    assert same
    norms = {name: table.groupby("feature")["norm"].max() for name, table in tables.items()}
    for feature in same:
        assert norms["mean"][feature] < norms["zero"][feature]


def test_one_feature_is_ablated_as_the_setting_says() -> None:
    edit = Ablation("mean", seed=5).edit(7, permuted=2)
    assert (edit.kind, edit.features.tolist(), edit.replacement, edit.permuted, edit.seed) == (
        "ablate",
        [7],
        "mean",
        2,
        5,
    )
    assert not Ablation().edit(7).needs_statistics
    assert isinstance(edit, Edit)
