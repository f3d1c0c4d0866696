"""Principal and independent components: planted ones are found, and what cannot be found is said."""

import warnings

import numpy as np
import pytest

from sae_genomics.associations import components
from sae_genomics.associations.components import fit_rows, of_independent, of_principal, principal_components
from sae_genomics.associations.linear_baselines import _Sample, find_units
from sae_genomics.errors import Interrupted


def planted(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32 rows [n, 8] = independent, heavy-tailed sources [n, 3] x a mixing matrix, plus an offset; and the sources."""
    rng = np.random.default_rng(seed)
    sources = rng.laplace(size=(n, 3))
    mixed = sources @ rng.normal(size=(3, 8)) * [3, 1, 1, 1, 1, 1, 1, 1] + 100
    return mixed.astype(np.float32), sources


def test_independent_components_are_the_planted_sources_and_principal_ones_are_not():
    rows, sources = planted()
    found = principal_components(rows)
    assert len(found.std) == 3, "the rest has no variance but rounding"
    independent, note = of_independent(found, rows, seed=1)
    assert note is None
    for units, alike in ((independent, True), (of_principal(found, rows), False)):
        correlation = np.abs(np.corrcoef(units.project(rows).T, sources.T)[:3, 3:])
        assert (correlation.max(axis=0) > 0.98).all() == alike
        z = (units.project(rows) - units.mean) * units.inverse_std
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-3)


def test_principal_components_are_those_of_numpy():
    rows = planted()[0]
    found = principal_components(rows)
    _, singular, axes = np.linalg.svd(rows - rows.mean(axis=0, dtype=np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(found.directions * axes[:3], axis=1)), 1, atol=1e-6)
    np.testing.assert_allclose(found.std, singular[:3] / np.sqrt(len(rows) - 1), rtol=1e-6)


def test_no_more_than_the_documented_number_of_components(monkeypatch):
    monkeypatch.setattr(components, "MAX_COMPONENTS", 2)
    rows = planted()[0]
    found = principal_components(rows)
    assert len(found.std) == 2
    assert of_independent(found, rows, seed=1)[0].n_units == 4
    assert fit_rows(64) == components.FIT_ROWS
    assert fit_rows(4096) * 4096 * 4 == components.FIT_BYTES


def test_no_convergence_is_a_note_and_no_warning(monkeypatch):
    monkeypatch.setattr(components, "ICA_ITERATIONS", 1)
    rows = planted()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        units, note = of_independent(principal_components(rows), rows, seed=1)
    assert note == "FastICA did not converge in 1 iterations; the components are those of the last one"
    assert units.n_units == 6
    assert np.isfinite(units.project(rows)).all()


def test_a_signal_stops_the_iteration():
    def pause():
        raise Interrupted("stopped by SIGTERM")

    rows = planted()[0]
    with pytest.raises(Interrupted):
        of_independent(principal_components(rows), rows, 1, pause)


@pytest.mark.parametrize("rows", [np.zeros((0, 5)), np.ones((1, 5)), np.ones((30, 5))], ids=["none", "one", "constant"])
def test_rows_in_which_nothing_varies_have_no_components(rows):
    rows = rows.astype(np.float32)
    found = find_units(("neurons", "pca", "ica"), 5, [rows], 0, lambda: None)
    assert found["neurons"].units.n_units == 10
    assert found["pca"].units.n_units == found["ica"].units.n_units == 0


def test_few_rows_have_few_components():
    rows = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    found = find_units(("pca", "ica"), 9, [rows], 0, lambda: None)
    assert found["pca"].units.n_components == found["ica"].units.n_components == 3


def test_a_seed_means_the_same_components():
    rows = planted()[0]
    first, second, other = (find_units(("ica",), 8, [rows], seed, lambda: None)["ica"].units for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.directions, second.directions)
    assert not np.array_equal(first.directions, other.directions)


@pytest.mark.parametrize("most", [1, 7, 64, 1000])
def test_a_sample_is_of_rows_at_even_distances(most):
    rows = np.arange(2000, dtype=np.float32).repeat(2).reshape(1000, 4)
    sample, rng = _Sample(4, most), np.random.default_rng(most)
    for part in np.split(rows, np.sort(rng.integers(0, 1000, 30))):
        sample.add(part)
    found = sample.rows
    stride = 1
    while -(-1000 // stride) > most:
        stride *= 2
    np.testing.assert_array_equal(found, rows[::stride])
