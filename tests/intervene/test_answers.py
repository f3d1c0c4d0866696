"""What is measured, against a plain loop: for each item a full clean pass and a full edited one, the edit written anew with dense arrays."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats

from sae_genomics.activations.extraction.extract import loaded_model
from sae_genomics.activations.extraction.tokenised import tokenised_items
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.causal.over_items import over_groups
from sae_genomics.causal.task import hidden_tokens
from sae_genomics.intervene.answer import Answer, answer
from sae_genomics.intervene.request import Request
from sae_genomics.intervene.tables import _values_of_units
from sae_genomics.models.planted import truth
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from tests.intervene.conftest import dense

LAYER = 1


def heldout(run: Run) -> np.ndarray:
    return np.flatnonzero(run.kind.read_items(run, ["heldout"])["heldout"].to_numpy(bool))


def training_z(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Activations of every stored training token that counts, [T, d_sae], and its vocabulary id."""
    encoder, out = load_encoder(run.sae_dir(LAYER), "cpu"), set(heldout(run).tolist())
    parts, ids = [], []
    for shard in range(run.n_shards):
        tokens, (start, _) = read_tokens(run.tokens_file(shard)), run.shard_items(shard)
        with open_activations(run.activations_file(LAYER, shard)) as file:
            for item in range(len(tokens.item_ptr) - 1):
                span = slice(int(tokens.item_ptr[item]), int(tokens.item_ptr[item + 1]))
                counts = ~tokens.special[span]
                if start + item not in out:
                    x = torch.from_numpy(file.rows(span.start, span.stop).astype(np.float32))[torch.from_numpy(counts)]
                    parts.append(dense(encoder, x).numpy())
                    ids.append(tokens.token[span][counts])
    return np.concatenate(parts), np.concatenate(ids)


def often(run: Run, n: int) -> list[int]:
    """Features that are active often."""
    return np.argsort(-(training_z(run)[0] > 0).mean(axis=0), kind="stable")[:n].tolist()


def mean_and_ends(values: np.ndarray) -> tuple[float, float, float]:
    mean, reach = values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, mean - reach, mean + reach


def size(found: Answer, outcome: str) -> dict[str, float]:
    return next(each for each in found.sizes if each["outcome"] == outcome)


@pytest.mark.parametrize("where", ["active", "all"])
def test_cells_one_at_a_time(cells: Run, where: str) -> None:
    """A set of features clamped at 1.5 times their 99th percentile."""
    features = often(cells, 3)
    request = Request(
        LAYER, "clamp", tuple(features), amount=1.5, reference="p99", where=where, max_items=99, draws=2, seed=5
    )
    found = answer(cells, request)
    model, encoder = loaded_model(cells, may_compile=False), load_encoder(cells.sae_dir(LAYER), "cpu")
    z_training, _ = training_z(cells)
    target = torch.tensor([1.5 * np.quantile(z[z > 0], 0.99) for z in z_training[:, features].T])
    drawn = np.random.default_rng([5, LAYER, 1]).standard_normal((2, model.info.d_model))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    rows: dict[str, list] = {name: [] for name in ("norm", "token", "from_item", "embedding", "random", "frame")}
    for row in heldout(cells):
        one = tokenised_items(cells, model, np.array([row])).tokens
        usual = torch.from_numpy(~one.special)
        delta: dict[str, torch.Tensor] = {}

        def clamp(x: torch.Tensor, usual: torch.Tensor = usual, delta: dict = delta) -> torch.Tensor:
            z = dense(encoder, x)[:, features]
            new = torch.where((z > 0) | (where == "all"), target, z) * usual[:, None]
            delta["it"] = (new - z * usual[:, None]) @ encoder.W_dec[features].double()
            return (x.double() + delta["it"]).float()

        before = model.outputs(one, hook="resid_post")
        after = model.outputs(one, hook="resid_post", interventions={LAYER: clamp})
        if not delta["it"].any():
            continue
        rows["norm"].append(float(delta["it"].norm()))
        counts = (one.unit >= 0) & ~one.special
        for name, old, new in (
            ("token", before.expr_preds, after.expr_preds),
            ("from_item", before.mvc_output, after.mvc_output),
        ):
            change = (new - old).double().numpy()[counts]
            rows[name].append(np.sqrt((change**2).mean()))
            rows["frame"].append(
                pd.DataFrame({"outcome": name, "unit": one.unit[counts], "change": change, "row": row})
            )
        rows["embedding"].append(float((after.cell_emb - before.cell_emb).norm()))
        lengths = delta["it"].norm(dim=1, keepdim=True)
        turned = [
            model.outputs(
                one,
                hook="resid_post",
                interventions={LAYER: lambda x, u=u: (x + lengths * torch.from_numpy(u)).float()},  # noqa: B023
            )
            for u in drawn
        ]
        rows["random"].append([float((each.cell_emb - before.cell_emb).norm()) for each in turned])
    assert len(rows["norm"]) >= 10
    assert found.facts["n_items"] == len(rows["norm"])
    assert found.facts["norm"] == pytest.approx(np.mean(rows["norm"]), rel=1e-3)
    for name in ("token", "from_item", "embedding"):
        got = size(found, name)
        expected = mean_and_ends(np.array(rows[name]))
        assert (got["change"], got["change_low"], got["change_high"]) == pytest.approx(expected, rel=2e-2, abs=1e-4)
    of_draws = np.mean(rows["random"], axis=0)
    assert size(found, "embedding")["random"] == pytest.approx(of_draws.mean(), rel=2e-2)
    assert size(found, "embedding")["random_high"] == pytest.approx(of_draws.max(), rel=2e-2)
    names = cells.kind.read_units(cells).unit_id
    per_cell = pd.concat(rows["frame"]).assign(unit_id=lambda frame: names[frame["unit"].to_numpy()])
    for name in ("token", "from_item"):
        by = per_cell[per_cell["outcome"] == name].groupby("unit_id")["change"]
        got = found.units[found.units["outcome"] == name].set_index("unit_id")
        assert set(got.index) == set(by.groups)
        mean, n = by.mean(), by.size()
        scale = float(mean.abs().max())
        assert scale > 1e-3
        assert (got["change"] - mean).abs().max() < 0.01 * scale
        assert (got["n_items"].reindex(n.index) == n).all()
        for unit in n[n >= 5].index[:20]:
            _, low, high = mean_and_ends(by.get_group(unit).to_numpy())
            assert got.loc[unit, "change_low"] == pytest.approx(low, abs=0.02 * scale)
            assert got.loc[unit, "change_high"] == pytest.approx(high, abs=0.02 * scale)
        assert got.loc[n[n < 3].index, "p_value"].isna().all()


def test_proteins_one_at_a_time(proteins: Run) -> None:
    """A feature set to its mean at the residue, hidden residues looked at: KL, and how the probability of each residue changes, by group."""
    feature = often(proteins, 1)[0]
    found = answer(proteins, Request(LAYER, "ablate", (feature,), to="mean", max_items=99, draws=2, masked=True))
    model, encoder = loaded_model(proteins, may_compile=False), load_encoder(proteins.sae_dir(LAYER), "cpu")
    z, ids = training_z(proteins)
    z = z[:, feature]
    means = {int(unit): z[ids == unit].mean() for unit in np.unique(ids)}
    units = proteins.kind.read_units(proteins)
    kl, norm, shift, group = [], [], [], []
    table = proteins.kind.read_items(proteins, ["group"])["group"].to_numpy()
    for row in heldout(proteins):
        one = tokenised_items(proteins, model, np.array([row])).tokens
        if one.n_items > 1:
            pytest.fail("windows are not expected here")
        hidden = hidden_tokens(model, one, proteins.config.run.seed)
        paused = model.pause(one, LAYER, "resid_post", hidden)
        x = paused.activations
        z_here = dense(encoder, x)[:, feature] * torch.from_numpy(~one.special)
        # What stands at a hidden residue must not be told: the feature's mean over all tokens.
        new = torch.tensor(
            [z.mean() if hide else means.get(int(token), 0.0) for token, hide in zip(one.token, hidden, strict=True)]
        )
        change = torch.where(z_here > 0, new - z_here, 0.0)[:, None] * encoder.W_dec[feature].double()
        if not change.any() or not hidden.any():
            continue
        p, q = (model.resume(paused, each).token.double().softmax(1) for each in (x, (x.double() + change).float()))
        at = torch.from_numpy(hidden & (one.unit >= 0))
        kl.append(float((p * (p.log() - q.log())).sum(1)[at].mean()))
        shift.append((q - p)[at].mean(0)[torch.from_numpy(units.token.astype(np.int64))].detach().numpy())
        norm.append(float(change.norm()))
        group.append(table[row])
    assert found.facts["n_items"] == len(kl)
    by = pd.DataFrame({"group": group, "kl": kl, "norm": norm}).groupby("group").mean()
    assert found.facts["n_groups"] == len(by)
    assert found.facts["norm"] == pytest.approx(by["norm"].mean(), rel=1e-3)
    assert size(found, "token")["change"] == pytest.approx(by["kl"].mean(), rel=2e-2)
    of_groups = pd.DataFrame(np.array(shift), columns=units.unit_id).groupby(np.array(group)).mean()
    got = found.units.set_index("unit_id")["change"]
    scale = float(of_groups.mean().abs().max())
    assert scale > 1e-7
    assert (got - of_groups.mean()).abs().max() < 0.02 * scale + 1e-8


def planted_latent(run: Run, feature: truth.Feature) -> int:
    decoder = load_encoder(run.sae_dir(LAYER), "cpu").W_dec.numpy()
    cosine = decoder @ truth.directions()[truth.NUMBER[feature.name]] / np.linalg.norm(decoder, axis=1)
    assert cosine.max() > 0.95
    return int(cosine.argmax())


@pytest.mark.parametrize("kind", ["ablate", "clamp"])
def test_a_planted_feature_moves_its_own_genes_and_no_others(planted: Run, kind: str) -> None:
    acting = [each for each in truth.features_at(LAYER) if each.causal and set(each.causal) <= set(each.tokens)]
    for feature in acting[:3]:
        amount = (
            0.2 if kind == "clamp" else None
        )  # upward the toy saturates: its decoder predicts at most one programme
        request = Request(LAYER, kind, (planted_latent(planted, feature),), amount=amount, draws=19)
        found = answer(planted, request)
        own = {truth.GENES[gene] for gene in feature.causal}
        rows = found.units[found.units["outcome"] == "token"].set_index("unit_id")
        assert set(rows.index[rows["q_value"] <= 0.05]) == own
        assert (rows.loc[sorted(own), "change"] < -0.3).all()
        assert rows.loc[~rows.index.isin(own), "change"].abs().max() < 0.02
        assert own <= set(rows.index[rows["own"]])
        specific = next(each for each in found.specificity if each["outcome"] == "token")
        assert specific["specificity"] < -3
        assert abs(specific["effect_matched"]) < 0.1 * abs(specific["effect_own"])
        assert specific["p_direction"] == pytest.approx(1 / 20)
        assert specific["p_targets"] < 0.01
        assert size(found, "token")["p_value"] == pytest.approx(1 / 20)


def test_random_directions_are_null(planted: Run, tmp_path) -> None:
    """Directions that mean nothing are beyond random directions as often as chance has it."""
    generator = np.random.default_rng(0)
    p, discoveries, n = [], 0, 12
    for number in range(n):
        file = tmp_path / f"{number}.safetensors"
        save_file({"v": torch.from_numpy(generator.standard_normal(32).astype(np.float32))}, file)
        found = answer(planted, Request(LAYER, "add", direction=file, amount=0.5, draws=19, max_items=12, seed=number))
        p.append(size(found, "token")["p_value"])
        discoveries += bool((found.units["q_value"] <= 0.05).any())
        assert found.specificity == []
        assert not found.units["own"].any()
    assert discoveries <= 3
    assert np.mean(np.array(p) <= 0.1) <= 0.4
    assert np.mean(p) > 0.3


def test_the_same_seed_gives_the_same_numbers(planted: Run) -> None:
    request = Request(LAYER, "ablate", (3, 4), to="resample", where="all", draws=5, max_items=8)
    first, again = answer(planted, request), answer(planted, request)
    pd.testing.assert_frame_equal(first.units, again.units)
    assert first.sizes == again.sizes
    other = answer(planted, Request(**{**request.__dict__, "seed": 9}))
    assert other.sizes[0]["random"] != first.sizes[0]["random"]


def test_units_count_once_per_item_and_items_once_per_group() -> None:
    """Against pandas, for items in which a unit stands several times, and groups of several items."""
    generator = np.random.default_rng(0)
    item = np.sort(generator.integers(0, 9, 300))
    unit, group = generator.integers(0, 5, 300), np.array([0, 0, 1, 1, 1, 2, 3, 3, 0])
    change = generator.standard_normal((3, 300)).astype(np.float32)
    counts = generator.random(300) < 0.7
    for groups in (None, group):
        passed = SimpleNamespace(
            counts=counts, item=item, n_items=9, group=groups, sample=SimpleNamespace(tokens=SimpleNamespace(unit=unit))
        )
        of_items, of_edits = _values_of_units(passed, change, 5)  # type: ignore[arg-type]
        for edit in range(3):
            frame = pd.DataFrame({"item": item, "unit": unit, "change": change[edit]})[counts]
            per_item = frame.groupby(["item", "unit"])["change"].mean().reset_index()
            if groups is not None:
                per_item = (
                    per_item.assign(item=groups[per_item["item"]])
                    .groupby(["item", "unit"])["change"]
                    .mean()
                    .reset_index()
                )
            np.testing.assert_allclose(of_edits[edit], per_item.groupby("unit")["change"].mean(), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(np.nanmean(over_groups(of_items, groups), axis=0), of_edits[0], rtol=1e-5, atol=1e-7)
