"""Both signs of linear units: gene sums and cell maxima against plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.associations.linear_units import LinearUnits, Moments
from sae_genomics.associations.signed_sums import SignedSums, signed_maxima

from .conftest import as_dictionary, blocks


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.sampled_from([0.0, 50.0]))
def test_moments_are_those_of_all_rows(lengths, offset):
    rng = np.random.default_rng(sum(lengths))
    parts = [rng.normal(offset, 1, (n, 5)).astype(np.float32) for n in lengths]
    moments = Moments(5)
    for part in parts:
        moments.add(part)
    rows = np.concatenate(parts).astype(np.float64)
    if len(rows):
        np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(moments.std, rows.std(axis=0), rtol=1e-4, atol=1e-5)
    assert moments.n == len(rows)


def neurons() -> LinearUnits:
    """Six, one of them without spread."""
    rng = np.random.default_rng(5)
    std = np.array([1.0, 2.0, 0.5, 0.0, 1.0, 3.0])
    with np.errstate(divide="ignore"):
        return LinearUnits(rng.normal(1, 1, 6).astype(np.float32), np.where(std > 0, 1 / std, 0).astype(np.float32))


def directions() -> LinearUnits:
    """Three along some directions of six."""
    rng = np.random.default_rng(6)
    return LinearUnits.of_directions(
        rng.normal(size=(3, 6)), rng.normal(size=6), rng.normal(1, 2, (40, 6)).astype(np.float32)
    )


def plain_units(units: LinearUnits, x: np.ndarray) -> np.ndarray:
    """float64 [T, units]: the formula, both signs side by side."""
    y = x.astype(np.float64) if units.directions is None else (x - units.center).astype(np.float64) @ units.directions.T
    z = (y - units.mean) * units.inverse_std
    return np.stack([np.maximum(z, 0), np.maximum(-z, 0)], axis=2).reshape(len(x), units.n_units)


@pytest.mark.parametrize("make", [neurons, directions])
@settings(deadline=None, max_examples=30)
@given(blocks(), st.sampled_from([1, 2, None]))
def test_sums_of_both_signs_are_those_of_plain_numpy(make, batch, components_at_once):
    block, _, n_genes, _ = batch
    units = make()
    x = np.random.default_rng(0).normal(1, 2, (len(block), 6)).astype(np.float32)
    sums = SignedSums(units, n_genes)
    sums.add(block, units.project(x))
    sums.add(block, units.project(x))
    values = plain_units(units, x)
    expected = {}
    for unit in range(units.n_units):
        for gene in range(n_genes):
            here = block.unit == gene
            some = values[here, unit]
            if (some > 0).any():
                scored = some @ block.weight[here].astype(np.float64)
                expected[unit, gene] = [2 * scored, 2 * some.sum(), 2 * int((some > 0).sum())]
    found = as_dictionary(sums.by_unit(components_at_once))
    assert found.keys() == expected.keys()
    for key, wanted in expected.items():
        assert found[key] == pytest.approx(wanted, rel=1e-3, abs=1e-4)
        assert found[key][2] == wanted[2]


def test_sums_do_not_depend_on_the_blocks():
    """A pair's tokens are added in their order: bit for bit the same in one block and in two."""
    from sae_genomics.associations.triples import TokenBlock

    rng = np.random.default_rng(1)
    gene, expression = rng.integers(-1, 4, 60).astype(np.int32), rng.integers(1, 9, 60).astype(np.float32)
    x = rng.normal(size=(60, 6)).astype(np.float32)
    whole, parts = SignedSums(neurons(), 4), SignedSums(neurons(), 4)
    whole.add(TokenBlock(gene, expression, np.array([0, 60]), np.zeros(1, bool)), x)
    for some in (slice(0, 25), slice(25, 60)):
        n = some.stop - some.start
        parts.add(TokenBlock(gene[some], expression[some], np.array([0, n]), np.zeros(1, bool)), x[some])
    assert as_dictionary(whole.by_unit()) == as_dictionary(parts.by_unit())


@pytest.mark.parametrize("make", [neurons, directions])
@settings(deadline=None, max_examples=40)
@given(blocks())
def test_maxima_of_both_signs_are_those_of_plain_numpy(make, batch):
    block, units = batch[0], make()
    x = np.random.default_rng(0).normal(1, 2, (len(block), 6)).astype(np.float32)
    cells = np.arange(0, block.n_items, 2)
    found = signed_maxima(units, units.project(x), block, cells)
    y = x.astype(np.float64) if units.directions is None else (x - units.center).astype(np.float64) @ units.directions.T
    z = (y - units.mean) * units.inverse_std
    assert found.shape == (len(cells), units.n_units)
    for row, cell in zip(found, cells, strict=True):
        tokens = [t for t in range(block.item_ptr[cell], block.item_ptr[cell + 1]) if block.unit[t] >= 0]
        if not tokens:
            assert not row.any()
            continue
        np.testing.assert_allclose(row[0::2], z[tokens].max(axis=0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(row[1::2], (-z[tokens]).max(axis=0), rtol=1e-3, atol=1e-4)


def test_names_tell_number_and_sign():
    assert neurons().names[:5].tolist() == ["0+", "0-", "1+", "1-", "2+"]
    assert LinearUnits.none(6).n_units == 0


def test_no_product_is_made_for_raw_neurons():
    x = np.zeros((3, 6), np.float32)
    assert neurons().project(x) is x
