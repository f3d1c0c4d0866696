"""From the model's order to the file's: rows in place, sums right, no infinity on disk."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.activations.extraction.capture import ShardSink
from sae_genomics.activations.format import output
from sae_genomics.activations.format.dtypes import torch_dtype
from sae_genomics.activations.format.store import ActivationWriter, open_activations
from sae_genomics.errors import UserError
from tests.activations.test_store import header

D_MODEL = 24
CPU = torch.device("cpu")


def sink(folder, n_rows, dtype, layers=(0, 5), max_rows=1000):
    writers = {
        layer: ActivationWriter(folder / f"{layer}.h5", header(layer=layer, dtype=dtype, d_model=D_MODEL), n_rows)
        for layer in layers
    }
    return ShardSink(writers, max_rows, CPU)


def store(folder, x: dict[int, torch.Tensor], dtype, window_rows=64, batch_rows=10, seed=0):
    """Put rows down in an arbitrary order within each window."""
    n_rows = len(next(iter(x.values())))
    rng = np.random.default_rng(seed)
    with sink(folder, n_rows, dtype, list(x), window_rows) as target:
        for start in range(0, n_rows, window_rows):
            n = min(window_rows, n_rows - start)
            window = target.window(start, n)
            order = rng.permutation(n)
            for places in np.split(order, range(batch_rows, n, batch_rows)):
                window.put({layer: values[start + places] for layer, values in x.items()}, places)
            target.submit(window)
    return target.summaries


@settings(max_examples=25, deadline=None)
@given(
    n_rows=st.integers(1, 300),
    bad=st.lists(
        st.tuples(st.integers(0, 299), st.integers(0, D_MODEL - 1), st.sampled_from([np.nan, np.inf, -np.inf]))
    ),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    compute=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 5),
)
def test_rows_sums_and_non_finite_rows(tmp_path_factory, n_rows, bad, dtype, compute, seed):
    folder = tmp_path_factory.mktemp("sink")
    generator = torch.Generator().manual_seed(seed)
    x = {layer: (torch.randn(n_rows, D_MODEL, generator=generator) * 3 + layer).to(compute) for layer in (0, 5)}
    rows = sorted({row % n_rows for row, _, _ in bad})
    for row, column, value in bad:
        x[5][row % n_rows, column] = value
    store(folder, x, dtype, seed=seed)
    for layer, values in x.items():
        wanted = values.to(torch_dtype(dtype)).float().numpy()
        finite = np.ones(n_rows, dtype=bool)
        if layer == 5:
            finite[rows] = False
        with open_activations(folder / f"{layer}.h5") as file:
            got = file.rows(0, n_rows)
            np.testing.assert_array_equal(got[finite], wanted[finite])
            assert np.isnan(got[~finite]).all()
            np.testing.assert_array_equal(file.nonfinite_rows, np.flatnonzero(~finite))
            if finite.any():
                exact = wanted[finite].astype(np.float64)
                np.testing.assert_allclose(file.mean, exact.mean(0), rtol=1e-5, atol=1e-5)
                np.testing.assert_allclose(file.mean_squared_norm, (exact**2).sum(1).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "value", "advice"),
    [
        ("float16", 70_000.0, "bfloat16 or float32"),
        ("float16", -1e6, "bfloat16 or float32"),
        ("bfloat16", 3.4e38, "float32"),
    ],
)
def test_a_value_beyond_the_storage_dtype_is_an_error(tmp_path, dtype, value, advice):
    x = torch.randn(50, D_MODEL)
    x[20, 3] = value
    x[30, 3] = float("nan")  # does not hide it
    with pytest.raises(UserError, match=rf"layer 5: .* does not fit {dtype}; set activations.dtype to {advice}"):
        store(tmp_path, {0: torch.randn(50, D_MODEL), 5: x}, dtype)


@pytest.mark.parametrize(("dtype", "value"), [("float16", 65_504.0), ("float16", 65_519.0), ("bfloat16", 3.3e38)])
def test_the_largest_values_that_fit_are_stored(tmp_path, dtype, value):
    x = torch.ones(5, D_MODEL)
    x[2, 2] = value
    store(tmp_path, {1: x}, dtype)
    with open_activations(tmp_path / "1.h5") as file:
        assert np.isfinite(file.rows(0, 5)).all()


def test_a_failing_write_ends_the_shard_and_leaves_nothing_open(tmp_path, monkeypatch):
    def fail(self, start, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ActivationWriter, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        store(tmp_path, {0: torch.ones(300, D_MODEL)}, "float32", window_rows=20)
    h5py.File(tmp_path / "0.h5", "w").close()  # refused while the file is open


def test_what_the_disk_reports_late_ends_the_shard_too(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(output, "_to_disk", fail)
    with pytest.raises(OSError, match=r"Input/output error: '.*0\.h5'"):
        store(tmp_path, {0: torch.ones(300, D_MODEL)}, "float32", window_rows=20)
    h5py.File(tmp_path / "0.h5", "w").close()


def test_an_error_of_the_model_leaves_nothing_open(tmp_path):
    def compute():
        with sink(tmp_path, 10, "float32", [0]) as target:
            target.submit(target.window(0, 5))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        compute()
    h5py.File(tmp_path / "0.h5", "w").close()
