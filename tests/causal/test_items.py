"""Which items a feature is active in, chosen from a written matrix, and loading items of a run."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sae_genomics.causal import items
from sae_genomics.errors import DamagedArtifact
from sae_genomics.sae.loss_recovered import evenly


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
