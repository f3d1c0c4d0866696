"""The planted model holds what its truth says, layer by layer, and its cells are those of the generator."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

from sae_genomics.config import ModelConfig
from sae_genomics.data.cells.h5ad import resolve
from sae_genomics.data.cells.planted import FOLDER, gene_sets, make_cells
from sae_genomics.errors import UserError
from sae_genomics.items import CountItems
from sae_genomics.models import describe, load_model, untrained_model
from sae_genomics.models.planted import truth
from sae_genomics.models.planted.model import Planted
from sae_genomics.tokens import Tokens

HOOK = "resid_post"
N = 60


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return ad.read_h5ad(resolve("builtin:planted"))


@pytest.fixture(scope="module")
def model() -> Planted:
    made = load_model(ModelConfig(family="planted"), "cpu")
    assert isinstance(made, Planted)
    return made


@pytest.fixture(scope="module")
def batch(model: Planted, cells: ad.AnnData) -> Tokens:
    tokens = np.arange(2, truth.N_GENES + 2, dtype=np.int32)
    return model.tokenise(CountItems(np.arange(N), cells.X[:N], tokens), 0)


def test_the_bundled_cells_are_the_generators(cells: ad.AnnData) -> None:
    made = make_cells()
    np.testing.assert_array_equal(cells.X.toarray(), made.X.toarray())
    assert cells.obs.astype(str).equals(made.obs.astype(str))
    assert (FOLDER / "planted.gmt").read_text() == gene_sets()


def test_causal_genes_and_their_twins_are_expressed_alike(cells: ad.AnnData) -> None:
    counts = cells.X.toarray()
    np.testing.assert_array_equal(np.sort(counts[:, : truth.TWIN], axis=0), np.sort(counts[:, truth.TWIN :], axis=0))


def test_each_layer_holds_the_features_that_are_planted_there(model: Planted, cells: ad.AnnData, batch: Tokens) -> None:
    states = model.forward_layers(batch, range(truth.N_LAYERS), HOOK)
    gene = np.where(batch.special, -1, batch.token - 2)
    for layer, x in states.items():
        carried = x.numpy() @ truth.directions().T / truth.STRENGTH
        for number, feature in enumerate(truth.FEATURES):
            on = cells.obs[[f"on_{name}" for name in feature.programmes]].to_numpy()[:N]
            expected = np.zeros(len(batch), dtype=bool)
            for name, is_on in zip(feature.programmes, on.T, strict=True):
                genes = set(feature.tokens) & set(truth.programme_named(name).genes)
                expected |= np.isin(gene, list(genes)) & is_on[batch.item]
            if not feature.born <= layer <= feature.last:
                expected[:] = False
            assert ((carried[:, number] > 0.5) == expected).mean() > 0.999, (layer, feature.name)


def test_resuming_is_the_whole_pass_and_knows_no_neighbours(model: Planted, batch: Tokens) -> None:
    hidden = (np.random.default_rng(0).random(len(batch)) < 0.5) & ~batch.special
    loss = model.masked_loss(batch, hidden, HOOK)
    states = model.forward_layers(batch, [1, 4], HOOK)
    alone = model.forward_layers(batch.take([7]), [4], HOOK)[4]
    assert torch.equal(alone, states[4][batch.item_ptr[7] : batch.item_ptr[8]])
    paused = model.pause(batch, 1, HOOK)
    assert torch.equal(paused.activations, states[1])
    later = model.resume(paused, layers=[4], predict=False)
    assert later.token is None
    assert torch.equal(later.layers[4], states[4])
    paused = model.pause(batch, 1, HOOK, hidden)
    with torch.no_grad():
        predicted = model.resume(paused).token
        again = model.resume(paused, paused.activations + torch.zeros_like(paused.activations)).token
        taken = model.resume(paused.take([3, 3, 5])).token
    assert predicted is not None
    assert again is not None
    assert taken is not None
    np.testing.assert_allclose((predicted.numpy() - batch.per_token["value"])[hidden] ** 2, loss[hidden], atol=1e-5)
    assert torch.equal(predicted, again)
    n = batch.lengths[3]
    assert torch.equal(taken[:n], taken[n : 2 * n])


@pytest.mark.parametrize("feature", truth.FEATURES, ids=lambda feature: feature.name)
def test_erasing_a_direction_changes_its_causal_genes_alone(
    model: Planted, batch: Tokens, feature: truth.Feature
) -> None:
    paused = model.pause(batch, feature.last, HOOK)
    direction = torch.from_numpy(truth.directions()[truth.NUMBER[feature.name]])
    x = paused.activations
    with torch.no_grad():
        before, after = model.resume(paused), model.resume(paused, x - (x @ direction)[:, None] * direction)
    gene = batch.token - 2
    causal = np.isin(gene, feature.causal)
    for name in ("token", "from_item"):
        change = (getattr(after, name) - getattr(before, name)).numpy()
        assert np.abs(change[~causal]).max() < 1e-4
        if feature.causal:
            assert change[causal].min() < -0.2
            assert change[causal].max() < 0.05


def test_gradients_reach_the_activations(model: Planted, batch: Tokens) -> None:
    paused = model.pause(batch, 2, HOOK)
    x = paused.activations.clone().requires_grad_()
    predicted = model.resume(paused, x).token
    assert predicted is not None
    gene = torch.from_numpy(batch.token - 2)
    predicted[torch.isin(gene, torch.tensor(truth.FEATURES[0].causal))].sum().backward()
    assert x.grad is not None
    share = (x.grad.sum(0) @ torch.from_numpy(truth.directions()).T).numpy()
    assert share[0] > 0
    assert np.abs(share[1:]).max() < 1e-4 * share[0]


def test_an_untrained_model_holds_nothing(batch: Tokens) -> None:
    made = untrained_model(ModelConfig(family="planted"), torch.device("cpu"), 0)
    x = made.forward_layers(batch, [5], HOOK)[5].numpy()
    assert np.isfinite(x).all()
    same = untrained_model(ModelConfig(family="planted"), torch.device("cpu"), 0)
    np.testing.assert_array_equal(same.forward_layers(batch, [5], HOOK)[5].numpy(), x)
    other = untrained_model(ModelConfig(family="planted"), torch.device("cpu"), 1)
    assert np.abs(other.forward_layers(batch, [5], HOOK)[5].numpy() - x).max() > 0.1


@pytest.mark.parametrize(("key", "value"), [("name", "tahoe-x1-70m"), ("hook", "mlp_out"), ("drug_key", "drug")])
def test_settings_of_other_families_are_refused(key: str, value: str) -> None:
    with pytest.raises(UserError, match=f"model.{key}.*planted"):
        describe(ModelConfig(family="planted", **{key: value}))
