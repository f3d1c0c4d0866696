import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.associations.neurons import Moments, NeuronSums, cell_maxima

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


@settings(deadline=None, max_examples=30)
@given(blocks(), st.sampled_from([1, 3, None]))
def test_neuron_sums_are_those_of_a_loop(batch, neurons_at_once):
    block, _, n_slots, _ = batch
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (len(block), 6)).astype(np.float32)
    mean, std = rng.normal(1, 1, 6), np.array([1.0, 2.0, 0.5, 0.0, 1.0, 3.0])
    sums = NeuronSums(mean, std, n_slots)
    sums.add(block, x)
    sums.add(block, x)
    expected = {}
    for token in range(len(block)):
        for neuron in range(6):
            z = (x[token, neuron] - mean[neuron]) / std[neuron] if std[neuron] else 0.0
            if z > 0 and block.slot[token] >= 0:
                entry = expected.setdefault((neuron, int(block.slot[token])), [0.0, 0.0, 0])
                entry[0] += 2 * z * block.expression[token]
                entry[1] += 2 * z
                entry[2] += 2
    found = as_dictionary(sums.by_neuron(neurons_at_once))
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-4, abs=1e-4)
        assert found[key][2] == values[2]


@settings(deadline=None, max_examples=40)
@given(blocks())
def test_cell_maxima_pass_over_special_tokens_and_fill_empty_cells(batch):
    block = batch[0]
    x = np.random.default_rng(0).normal(size=(len(block), 4)).astype(np.float32)
    fill = np.arange(4, dtype=np.float32)
    found = cell_maxima(x, block, fill)
    for cell in range(block.n_cells):
        rows = [t for t in range(block.cell_ptr[cell], block.cell_ptr[cell + 1]) if block.slot[t] >= 0]
        np.testing.assert_array_equal(found[cell], x[rows].max(axis=0) if rows else fill)
