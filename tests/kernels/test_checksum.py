"""Both versions of Fletcher-32 are the one that HDF5 writes."""

import io

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sae_genomics.kernels.checksum  # noqa: F401
from sae_genomics.kernels.choice import KERNELS

VERSIONS = [KERNELS["checksum.fletcher32"].fast, KERNELS["checksum.fletcher32"].plain]


def by_hdf5(values: np.ndarray) -> int:
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("x", data=values, chunks=values.shape, fletcher32=True)
        file.flush()
        stored = dataset.id.read_direct_chunk((0,))[1]
    return int.from_bytes(stored[-4:], "little")


def some_values(n: int, seed: int, kind: str) -> np.ndarray:
    random = np.random.default_rng(seed).integers(0, 1 << 16, n).astype(np.uint16)
    extremes = np.where(random & 1, 0xFFFF, 0).astype(np.uint16)
    return {"random": random, "extremes": extremes, "zeros": random * 0, "ones": random | 0xFFFF}[kind]


# values are summed in columns of 256 and blocks of 256 x 360
SIZES = st.one_of(st.integers(1, 600), st.integers(92_000, 93_000), st.integers(1, 300_000))


@settings(deadline=None)
@given(n=SIZES, seed=st.integers(0, 99), kind=st.sampled_from(["random", "extremes", "zeros", "ones"]))
@example(n=256 * 360, seed=0, kind="ones")
@example(n=2 * 256 * 360 + 256 + 1, seed=0, kind="ones")
def test_it_is_what_hdf5_writes(n, seed, kind):
    values = some_values(n, seed, kind)
    expected = by_hdf5(values)
    assert [fletcher32(values) for fletcher32 in VERSIONS] == [expected, expected]


@given(values=st.lists(st.sampled_from([0, 1, 0xFE, 0xFF, 0xFF00, 0xFFFE, 0xFFFF]), min_size=1, max_size=8))
def test_sums_that_are_multiples_of_65535(values):
    values = np.array(values, dtype=np.uint16)
    expected = by_hdf5(values)
    assert [fletcher32(values) for fletcher32 in VERSIONS] == [expected, expected]


@pytest.mark.parametrize("n", [1 << 19, (1 << 22) + 3])
def test_large_chunks(n):
    values = some_values(n, 1, "ones")
    expected = by_hdf5(values)
    assert [fletcher32(values) for fletcher32 in VERSIONS] == [expected, expected]


def test_no_values():
    assert [fletcher32(np.empty(0, np.uint16)) for fletcher32 in VERSIONS] == [0, 0]
