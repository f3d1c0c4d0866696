"""Which items a feature is active in, chosen from a written matrix, and loading items of a run."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sae_genomics.activations.extraction.extract import loaded_model
from sae_genomics.artifacts import CELLS
from sae_genomics.associations.task import run_task
from sae_genomics.causal import items
from sae_genomics.causal.encoded import encode_paused
from sae_genomics.errors import DamagedArtifact
from sae_genomics.sae.load import load_encoder
from sae_genomics.sae.loss_recovered import evenly
from tests.associations.conftest import make_run  # noqa: F401


def written(path, dense: np.ndarray):
    matrix = csr_matrix(dense)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["shape"] = np.array(dense.shape)
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(matrix, part)
    return path


@pytest.mark.parametrize("entries", [1, 40, 1 << 22])
def test_items_are_spread_evenly_over_those_in_which_the_feature_is_active(tmp_path, monkeypatch, entries) -> None:
    monkeypatch.setattr(items, "_ENTRIES", entries)
    generator = np.random.default_rng(0)
    dense = generator.random((90, 12)).astype(np.float32) * (generator.random((90, 12)) < generator.random(12))
    dense[:, 4] = 0
    among = generator.random(90) < 0.5
    found = items.firing_items(written(tmp_path / "features.h5ad", dense), np.array([7, 2, 4, 11]), 5, among)
    assert found.features.tolist() == [2, 4, 7, 11]
    for number, feature in enumerate(found.features.tolist()):
        active = np.flatnonzero((dense[:, feature] > 0) & among)
        assert found.n_firing[number] == len(active)
        assert found.of(feature).tolist() == active[evenly(len(active), 5)].tolist()
    assert found.of(3).tolist() == []
    assert found.items.tolist() == sorted(set(found.item.tolist()))
    every = items.firing_items(tmp_path / "features.h5ad", np.array([2]), 1000)
    assert every.of(2).tolist() == np.flatnonzero(dense[:, 2] > 0).tolist()


def test_a_damaged_matrix_is_named(tmp_path) -> None:
    (tmp_path / "features.h5ad").write_bytes(b"nothing")
    with pytest.raises(DamagedArtifact, match=r"features\.h5ad"):
        items.firing_items(tmp_path / "features.h5ad", np.array([0]), 3)


def test_items_and_statistics_of_a_run(make_run) -> None:  # noqa: F811
    """What `associate` wrote, what the model does when it reads the same items again, and what is stored agree."""
    run = make_run(n_cells=40, data__heldout_fraction=0.4, validation__baselines=[])
    run_task(run, 0)
    heldout = CELLS.read(run.cells_file)["heldout"].to_numpy(bool)
    model, encoder = loaded_model(run), load_encoder(run.sae_dir(1))
    path = run.layer_results(1) / "features.h5ad"
    found = items.firing_items(path, np.arange(encoder.d_sae), 3, heldout)
    chosen = np.flatnonzero(heldout)
    tokens = items.load_items(run, model, chosen[::-1])
    assert tokens.n_items == len(chosen)
    encoded = encode_paused(model, model.pause(tokens, 1, "resid_post"), encoder)
    pairs = set(zip(encoded.feature.tolist(), chosen[encoded.sequence].tolist(), strict=True))
    assert found.n_firing.tolist() == [sum(pair[0] == j for pair in pairs) for j in range(encoder.d_sae)]
    for feature in range(encoder.d_sae):
        assert all((feature, item) in pairs for item in found.of(feature).tolist())
    assert found.n_firing[:5].tolist() == [0] * 5  # dead ones
    with pytest.raises(ValueError, match="no item"):
        items.load_items(run, model, [])

    statistics = items.training_statistics(run, 1, encoder, heldout)
    training = items.load_items(run, model, np.flatnonzero(~heldout))
    expected = encode_paused(model, model.pause(training, 1, "resid_post"), encoder)
    assert statistics.unit_tokens.sum() == (~training.special).sum()
    for feature in np.argsort(-np.diff(expected.feature_ptr), kind="stable")[:2].tolist():
        own = expected.activation[expected.of(np.array([feature]))]
        assert statistics.median[feature] == pytest.approx(np.median(own), rel=1e-4)
        assert statistics.p99[feature] == pytest.approx(np.quantile(own, 0.99), rel=1e-4)
    few = items.training_statistics(run, 1, encoder, heldout, n_tokens=60)
    assert 0 < few.unit_tokens.sum() < statistics.unit_tokens.sum() / 2
