"""Edits against their formula, written with dense arrays."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from sae_genomics.causal.edits import Edit, apply
from sae_genomics.causal.encoded import encode
from sae_genomics.causal.statistics import feature_statistics
from tests.causal.small import D_SAE, dense, random_encoder

D_MODEL, VOCABULARY = 24, 7
PTR = np.array([0, 30, 31, 64])
USUAL = ~np.isin(np.arange(64), PTR[:-1])
FEATURES = np.array([5, 2, 17])


def batch(seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(64, D_MODEL, generator=generator), np.arange(64) % VOCABULARY - (np.arange(64) % 13 == 0)


@pytest.fixture(params=[0, VOCABULARY], ids=["as it is", "centred"])
def encoder(request):
    return random_encoder(D_MODEL, units=request.param)


@pytest.fixture
def training(encoder):
    parts = []
    for seed in (1, 2):
        x, units = batch(seed)
        parts.append(encode(encoder, x, units, ptr=PTR, usual=USUAL))
    return parts


def edited(encoder, edit: Edit, **given: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, z and the edited x."""
    x, units = batch()
    before = x.clone()
    found = apply(encoder, x, units, edit, ptr=PTR, usual=USUAL, **given)
    assert torch.equal(x, before)
    z = dense(encoder, x, units) * torch.from_numpy(USUAL)[:, None]
    return x, z, found


def check(encoder, x, z, new, found) -> None:
    """h' = h + (decode(z') - decode(z)), and rows that are not touched are the same bit for bit."""
    expected = x.double() + (new - z).double() @ encoder.W_dec.double()
    assert float((found.double() - expected).abs().max()) < 1e-5
    untouched = (new == z).all(dim=1)
    assert untouched.any()
    assert not untouched.all()
    assert torch.equal(found[untouched], x[untouched])


@pytest.mark.parametrize("features", [FEATURES[:1], FEATURES])
@pytest.mark.parametrize(
    ("edit", "change"),
    [
        ({"kind": "ablate"}, lambda z: z * 0),
        ({"kind": "scale", "amount": 3.0}, lambda z: 3 * z),
        ({"kind": "scale", "amount": -1.0}, lambda z: -z),
        ({"kind": "add", "amount": 0.5}, lambda z: torch.where(z > 0, z + 0.5, z)),
        ({"kind": "add", "amount": 0.5, "where": "all"}, lambda z: z + 0.5),
    ],
)
def test_simple_edits(encoder, features, edit, change) -> None:
    x, z, found = edited(encoder, Edit(features=features, **edit))
    assert (z[:, features] > 0).any()
    new = z.clone()
    new[:, features] = change(z[:, features])
    new[~USUAL] = 0
    check(encoder, x, z, new, found)


@pytest.mark.parametrize("where", ["active", "all"])
@pytest.mark.parametrize("reference", ["median", "p99"])
def test_clamping_at_a_multiple_of_the_features_own_value(encoder, training, where, reference) -> None:
    statistics = feature_statistics(training, D_SAE)
    given = np.concatenate([part.activation[part.of(FEATURES[:1])] for part in training])
    own = np.median(given) if reference == "median" else np.quantile(given, 0.99)
    edit = Edit("clamp", FEATURES[:1], amount=2.0, where=where, reference=reference)
    x, z, found = edited(encoder, edit, statistics=statistics)
    new = z.clone()
    chosen = torch.from_numpy(USUAL) & ((z[:, FEATURES[0]] > 0) | (where == "all"))
    new[chosen, FEATURES[0]] = 2 * float(own)
    check(encoder, x, z, new, found)


@pytest.mark.parametrize("where", ["active", "all"])
def test_ablating_to_the_units_mean(encoder, training, where) -> None:
    statistics = feature_statistics(training, D_SAE)
    x, z, found = edited(encoder, Edit("ablate", FEATURES, replacement="mean", where=where), statistics=statistics)
    z_training, units = [], []
    for seed in (1, 2):
        rows, ids = batch(seed)
        z_training.append(dense(encoder, rows, ids)[USUAL])
        units.append(ids[USUAL])
    known, table = np.concatenate(units), torch.cat(z_training)
    ids = batch()[1]
    means = torch.stack([table[known == unit].mean(0) for unit in ids])
    new = z.clone()
    chosen = (z > 0) | (where == "all")
    chosen[~USUAL] = False
    for feature in FEATURES:
        new[:, feature] = torch.where(chosen[:, feature], means[:, feature], z[:, feature])
    check(encoder, x, z, new, found)


def test_a_unit_that_was_not_seen_has_the_overall_mean(encoder, training) -> None:
    statistics = feature_statistics(training, D_SAE)
    total = sum(part.activation[part.of(np.array([5]))].sum() for part in training) / (2 * USUAL.sum())
    unseen = np.array([VOCABULARY + 3])
    assert statistics.mean(np.array([5]), unseen)[0] == pytest.approx(total, rel=1e-5)
    nothing = feature_statistics([], D_SAE)
    assert nothing.median.tolist() == [0] * D_SAE
    assert nothing.mean(np.array([5]), np.array([-1])).tolist() == [0]
    assert nothing.draw(np.array([5]), np.array([-1]), 0).tolist() == [0]


def test_drawn_values_are_those_of_the_unit(training) -> None:
    """A value is drawn as often as it is there, and zero for the rest."""
    statistics = feature_statistics(training, D_SAE)
    feature, counts = np.unique(np.concatenate([part.feature for part in training]), return_counts=True)
    often = int(feature[counts.argmax()])
    given = [(p.unit[p.token[p.of([often])]], p.activation[p.of([often])]) for p in training]
    units, values = (np.concatenate(parts) for parts in zip(*given, strict=True))
    unit = int(units[0])
    drawn = statistics.draw(np.full(20_000, often), np.full(20_000, unit), seed=3)
    n = sum(int(((p.unit == unit) & p.usual).sum()) for p in training)
    own = values[units == unit]
    assert set(drawn.tolist()) <= {0.0, *own.tolist()}
    for value in own:
        assert (drawn == value).mean() == pytest.approx(1 / n, rel=0.2)


def test_a_direction_is_added(encoder) -> None:
    direction = np.linspace(-1, 1, D_MODEL, dtype=np.float32)
    x, z, found = edited(encoder, Edit("add", amount=2.0, direction=direction, where="all"))
    assert torch.equal(found[USUAL], x[USUAL] + 2 * torch.from_numpy(direction))
    assert torch.equal(found[~USUAL], x[~USUAL])
    x, z, found = edited(encoder, Edit("add", FEATURES, 2.0, direction=direction))
    active = (z[:, FEATURES] > 0).any(dim=1)
    assert torch.equal(found[active], x[active] + 2 * torch.from_numpy(direction))
    assert torch.equal(found[~active], x[~active])


@pytest.mark.parametrize(
    "edit",
    [
        Edit("scale", FEATURES, 1.0),
        Edit("add", FEATURES, 0.0),
        Edit("ablate", np.zeros(0, np.int64)),
        Edit("add", amount=0.0, direction=np.ones(D_MODEL, np.float32), where="all"),
        Edit("scale", FEATURES, 1.0, turned=np.ones(D_MODEL, np.float32), permuted=1),
    ],
)
def test_an_edit_that_changes_nothing_changes_no_bit(encoder, edit) -> None:
    x, _, found = edited(encoder, edit)
    assert torch.equal(found, x)


def test_a_turned_edit_has_the_same_length_at_each_token(encoder) -> None:
    direction = np.arange(1, D_MODEL + 1, dtype=np.float32)
    x, _, own = edited(encoder, Edit("ablate", FEATURES))
    _, _, turned = edited(encoder, Edit("ablate", FEATURES, turned=direction))
    lengths = (own - x).norm(dim=1)
    assert torch.allclose((turned - x).norm(dim=1), lengths, atol=1e-5)
    along = torch.from_numpy(direction / np.linalg.norm(direction))
    assert torch.allclose((turned - x) @ along, lengths, atol=1e-5)


def test_a_permuted_edit_stays_in_its_sequence(encoder) -> None:
    x, _, own = edited(encoder, Edit("ablate", FEATURES))
    _, _, moved = edited(encoder, Edit("ablate", FEATURES, permuted=4))
    assert torch.equal(moved[~USUAL], x[~USUAL])
    for start, stop in pairwise(PTR.tolist()):
        lengths = [sorted((found - x)[start:stop].norm(dim=1).tolist()) for found in (own, moved)]
        assert lengths[0] == pytest.approx(lengths[1], abs=1e-5)
    assert not torch.equal(own, moved)


def test_half_precision_is_edited_in_float32(encoder) -> None:
    x, units = batch()
    half = x.bfloat16()
    found = apply(encoder, half, units, Edit("ablate", FEATURES), ptr=PTR, usual=USUAL)
    exact = apply(encoder, half.float(), units, Edit("ablate", FEATURES), ptr=PTR, usual=USUAL)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)


def test_edits_that_make_no_sense_are_refused(encoder) -> None:
    direction = np.ones(D_MODEL, np.float32)
    for wrong in (
        {"kind": "ablate", "features": FEATURES, "direction": direction},
        {"kind": "ablate"},
        {"kind": "add", "direction": direction},
        {"kind": "ablate", "features": np.array([1, 1])},
    ):
        with pytest.raises(ValueError, match=r"direction|twice"):
            Edit(**wrong)
    with pytest.raises(ValueError, match="statistics"):
        edited(encoder, Edit("clamp", FEATURES, 1.0))
