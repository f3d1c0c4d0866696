"""Chunks read and written past HDF5, against HDF5 itself."""

import itertools

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.activations.format.chunks import read_chunks
from sae_genomics.activations.format.output import OutputFile
from sae_genomics.kernels import chunks
from sae_genomics.kernels.choice import KERNELS

WRITERS = {name: getattr(KERNELS["chunks.chunk_writer"], name) for name in ("fast", "plain")}
DTYPES = [np.float32, np.float16, np.uint16]


def layout(shape, dtype, chunk_rows):
    return {
        "shape": shape, "maxshape": (None, shape[1]), "dtype": dtype, "chunks": (chunk_rows, shape[1]), "fletcher32": True,
        "fill_time": "never", "track_times": False,
    }  # fmt: skip


def some_rows(n_rows, width, dtype):
    return np.random.default_rng(n_rows).integers(0, 60_000, (n_rows, width)).astype(dtype)


def write(path, x, chunk_rows, writer_of, cuts=()):
    """The writer's offsets, and the rows that waited for their chunk after each write."""
    output, tails = OutputFile(path), []
    with h5py.File(output, "w") as file:
        rows = file.create_dataset("x", **layout(x.shape, x.dtype, chunk_rows))
        assert chunks.checksums_alone(rows)
        writer = writer_of(rows, output)
        edges = [0, *sorted(cuts), len(x)]
        for start, stop in itertools.pairwise(edges):
            writer.write(start, x[start:stop])
            tails.append(writer.tail(stop))
    output.close()
    return writer.offsets, tails


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(0, 60), width=st.sampled_from([1, 4, 33]), chunk_rows=st.sampled_from([2, 7, 20]),
    dtype=st.sampled_from(DTYPES), cuts=st.lists(st.integers(0, 60), max_size=4),
)  # fmt: skip
def test_both_writers_store_what_hdf5_would(tmp_path_factory, n_rows, width, chunk_rows, dtype, cuts):
    folder, x = tmp_path_factory.mktemp("chunks"), some_rows(n_rows, width, dtype)
    cuts = [min(cut, n_rows) for cut in cuts]
    written = {name: write(folder / f"{name}.h5", x, chunk_rows, writer, cuts) for name, writer in WRITERS.items()}
    with h5py.File(folder / "hdf5.h5", "w") as file:
        file.create_dataset("x", **layout(x.shape, x.dtype, chunk_rows))[...] = x
    starts = range(0, n_rows, chunk_rows)
    with h5py.File(folder / "hdf5.h5") as file:
        expected = [file["x"].id.read_direct_chunk((start, 0)) for start in starts]
    edges = [*sorted(cuts), n_rows]
    for name, (offsets, tails) in written.items():
        with h5py.File(folder / f"{name}.h5") as file:
            assert [file["x"].id.read_direct_chunk((start, 0)) for start in starts] == expected
            np.testing.assert_array_equal(file["x"][:], x)
        assert offsets is not None
        found = [
            rows.copy() for rows in read_chunks(folder / f"{name}.h5", np.array(offsets), (chunk_rows, width), dtype)
        ]
        assert len(found) == len(expected)
        np.testing.assert_array_equal(np.concatenate([x[:0], *found])[:n_rows], x)
        for edge, tail in zip(edges, tails, strict=True):
            np.testing.assert_array_equal(tail, x[edge - edge % chunk_rows : edge] if edge < n_rows else x[:0])


def test_a_writer_whose_chunk_lies_elsewhere_knows_no_offsets(tmp_path):
    x = some_rows(20, 4, np.float32)
    output = OutputFile(tmp_path / "a.h5")
    with h5py.File(output, "w") as file:
        writer = WRITERS["fast"](file.create_dataset("x", **layout(x.shape, x.dtype, 5)), output)
        writer.write(0, x[:5])
        assert writer.offsets is not None
        writer._output = type("Other", (), {"last_write": (0, 7)})
        writer.write(5, x[5:])
        assert writer.offsets is None
    output.close()


def test_the_plain_version_leaves_every_chunk_to_hdf5(tmp_path):
    write(tmp_path / "a.h5", some_rows(20, 4, np.float32), 5, WRITERS["plain"])
    with h5py.File(tmp_path / "a.h5") as file:
        out = np.empty((5, 4), np.float32)
        versions = KERNELS["chunks.chunks_of"]
        assert [versions.fast(file["x"]).read(number, out) for number in range(4)] == [True] * 4
        assert [versions.plain(file["x"]).read(number, out) for number in range(4)] == [False] * 4
        versions.plain(file["x"]).expect(0, 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_which_chunks_are_read_without_hdf5(tmp_path, dtype):
    direct = KERNELS["chunks.chunks_of"].fast
    x = np.arange(80).reshape(20, 4).astype(dtype)
    out = np.empty((5, 4), dtype=dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layout = {"shape": x.shape, "dtype": dtype, "chunks": (5, 4), "maxshape": (None, 4), "fill_time": "never"}
        plain = file.create_dataset("plain", fletcher32=True, **layout)
        plain[5:] = x[5:]  # the first chunk is not there
        plain.id.write_direct_chunk((10, 0), x[10:15].tobytes(), filter_mask=1)  # without a checksum
        file.create_dataset("without", data=x, chunks=(5, 4))
        file.create_dataset("shuffled", data=x, chunks=(5, 4), fletcher32=True, shuffle=True)
        file.create_dataset("empty", fletcher32=True, **{**layout, "shape": (0, 4)})
    with h5py.File(tmp_path / "a.h5") as file:
        chunks = direct(file["plain"])
        assert [chunks.read(number, out) for number in range(4)] == [False, True, False, True]
        np.testing.assert_array_equal(out, x[15:])
        chunks.expect(0, 4)
        for name in ("without", "shuffled"):
            assert not any(direct(file[name]).read(number, out) for number in range(4))
        direct(file["empty"]).expect(0, 0)
