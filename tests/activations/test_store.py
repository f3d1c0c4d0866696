"""The files of extraction: what is written is read, and damage is found and named."""

import errno
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.activations import read_activations
from sae_genomics.activations.format import store
from sae_genomics.activations.format.dtypes import as_disk, as_tensor, to_float32, torch_dtype
from sae_genomics.activations.format.hdf5 import stored_attribute
from sae_genomics.activations.format.store import ActivationWriter, Header, open_activations
from sae_genomics.activations.format.token_store import TokenIds, read_item_ptr, read_special_rows, read_tokens
from sae_genomics.errors import DamagedArtifact, UserError

D_MODEL = 40
ROOT = Path(__file__).parents[2]


def header(**changes) -> Header:
    values = {
        "fingerprint": "f00d", "model": "tiny", "model_identity": "1d", "hook": "mlp_out", "layer": 3, "shard": 2, "d_model": D_MODEL,
        "dtype": "float32", "sampled_by": "position",
    }  # fmt: skip
    return Header(**{**values, **changes})


def write(path, x: torch.Tensor, compression="none", cuts=(), nonfinite=(), **changes):
    name = str(x.dtype).removeprefix("torch.")
    writer = ActivationWriter(path, header(dtype=name, d_model=x.shape[1], **changes), len(x), compression)
    edges = [0, *sorted(cuts), len(x)]
    for start, stop in pairwise(edges):
        writer.write(start, as_disk(x[start:stop].contiguous()))
    writer.finish(np.array(nonfinite, dtype=np.int64), np.full(x.shape[1], 0.5), 7.25)


def test_a_file_from_before_the_arithmetic_was_recorded_opens(tmp_path):
    path = tmp_path / "a.h5"
    write(path, torch.ones(4, 3))
    with h5py.File(path, "r+") as file:
        del file.attrs["compute_dtype"]
    with open_activations(path) as file:
        assert file.header == header(d_model=3, compute_dtype="")
    with h5py.File(path, "r+") as file:
        del file.attrs["hook"]
    with pytest.raises(DamagedArtifact):
        open_activations(path)


@pytest.mark.parametrize("compression", ["none", "zstd", "lz4"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_come_back_as_they_went(tmp_path, dtype, compression):
    x = torch.randn(30_000, D_MODEL, generator=torch.Generator().manual_seed(0)).to(torch_dtype(dtype))
    write(tmp_path / "a.h5", x, compression, cuts=[17, 9000, 20_001])
    with open_activations(tmp_path / "a.h5") as file:
        assert (file.n_rows, file.d_model, file.dtype) == (30_000, D_MODEL, dtype)
        assert file.n_rows > file.chunk_rows, "the test is to span chunks"
        for start, stop in [(0, 30_000), (5, 6), (29_999, 30_000), (4000, 21_000), (12, 12)]:
            got = file.rows(start, stop)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, x[start:stop].float().numpy())


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_read_activations_gives_float32_whatever_is_stored(tmp_path, dtype, compression):
    x = torch.randn(500, D_MODEL, generator=torch.Generator().manual_seed(0)).to(torch_dtype(dtype))
    write(tmp_path / "a.h5", x, compression)
    for rows in (None, slice(0, 10), slice(7, None, 3), slice(-5, None), slice(9, 2), slice(400, 9999)):
        got = read_activations(str(tmp_path / "a.h5"), rows)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, x.float().numpy()[rows or slice(None)])
    with pytest.raises(ValueError, match="forwards"):
        read_activations(tmp_path / "a.h5", slice(9, 2, -1))
    with pytest.raises(DamagedArtifact, match=r"none\.h5"):
        read_activations(tmp_path / "none.h5")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_plain_hdf5_reader_finds_what_the_documentation_says(tmp_path, dtype):
    x = torch.randn(100, D_MODEL).to(torch_dtype(dtype))
    write(tmp_path / "a.h5", x, nonfinite=[3])
    with h5py.File(tmp_path / "a.h5") as file:
        rows = file["activations"]
        assert rows.dtype == {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[dtype]
        assert rows.attrs["dtype"] == file.attrs["dtype"] == dtype
        assert rows.fletcher32
        stored = rows[:]
        if dtype == "bfloat16":  # the upper half of a float32
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(stored.astype(np.float32), x.float().numpy())
        wanted = {
            "format_version": 1, "fingerprint": "f00d", "model": "tiny", "model_identity": "1d", "hook": "mlp_out",
            "hook_name": "blocks.3.hook_mlp_out", "layer": 3, "d_model": D_MODEL, "n_rows": 100, "n_nonfinite": 1,
            "mean_squared_norm": 7.25, "sampled_by": "position", "shard": 2,
        }  # fmt: skip
        assert {name: file.attrs[name] for name in wanted} == wanted
        np.testing.assert_array_equal(file.attrs["mean"], np.full(D_MODEL, 0.5))
        np.testing.assert_array_equal(file["nonfinite_rows"][:], [3])


def test_the_same_rows_make_the_same_bytes(tmp_path):
    x = torch.randn(5000, D_MODEL)
    write(tmp_path / "a.h5", x, cuts=[100, 4000])
    write(tmp_path / "b.h5", x)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_no_rows_at_all(tmp_path):
    write(tmp_path / "a.h5", torch.empty(0, D_MODEL))
    with open_activations(tmp_path / "a.h5") as file:
        assert file.rows(0, 0).shape == (0, D_MODEL)


@given(bits=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=50))
def test_bfloat16_is_the_upper_half_of_float32(bits):
    stored = np.array(bits, dtype=np.uint16)
    wanted = (stored.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(
        to_float32(stored, "bfloat16").view(np.uint32) << 1 >> 1, wanted.view(np.uint32) << 1 >> 1
    )
    np.testing.assert_array_equal(as_disk(as_tensor(stored, "bfloat16")), stored)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_flipped_byte_is_found_and_its_rows_named(tmp_path, compression):
    path = tmp_path / "shard_0007.h5"
    x = torch.randn(3 * (1 << 20) // (4 * D_MODEL), D_MODEL)
    write(path, x, compression)
    with h5py.File(path) as file:
        place = file["activations"].id.get_chunk_info(1)
        chunk_rows = file["activations"].chunks[0]
        first = place.chunk_offset[0]
    content = bytearray(path.read_bytes())
    content[place.byte_offset + place.size // 2] ^= 0x10
    path.write_bytes(content)
    with open_activations(path) as file:
        file.rows(0, chunk_rows)
        with pytest.raises(DamagedArtifact) as error:
            file.rows(0, file.n_rows)
    assert str(path) in str(error.value)
    assert f"rows {first:,} to {first + chunk_rows - 1:,}" in str(error.value)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    d_model=st.integers(1, 40),
    n_rows=st.integers(1, 300),
    chunk_bytes=st.integers(8, 4000),
    data=st.data(),
)
def test_rows_are_those_that_hdf5_reads(tmp_path_factory, dtype, d_model, n_rows, chunk_bytes, data):
    path = tmp_path_factory.mktemp("store") / "a.h5"
    start = data.draw(st.integers(0, n_rows))
    stop = data.draw(st.integers(start, n_rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK_BYTES", chunk_bytes)
        write(path, torch.randn(n_rows, d_model).to(torch_dtype(dtype)))
    with h5py.File(path) as file:
        wanted = file["activations"][start:stop]
    with open_activations(path) as file:
        file.expect(start, stop)
        got = file.stored_rows(start, stop)
        into = np.zeros((n_rows, d_model), dtype=wanted.dtype)
        file.stored_rows(start, stop, out=into[start:stop])
    assert got.dtype == wanted.dtype
    for rows in (got, into[start:stop]):
        np.testing.assert_array_equal(rows, wanted)
    assert not into[:start].any()
    assert not into[stop:].any()


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1), bit=st.integers(0, 7), number=st.integers(0, 3))
def test_a_flipped_bit_anywhere_is_found(tmp_path_factory, place, bit, number):
    path = tmp_path_factory.mktemp("store") / "a.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK_BYTES", 1600)
        write(path, torch.ones(35, D_MODEL))  # chunks of 10 rows, the last half empty
    with h5py.File(path) as file:
        chunk = file["activations"].id.get_chunk_info_by_coord((10 * number, 0))
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + int(place * (chunk.size - 1))] ^= 1 << bit
    path.write_bytes(content)
    last = min(10 * number + 9, 34)
    with open_activations(path) as file:
        for start, stop in ((0, 35), (10 * number, last + 1), (10 * number + 3, 35)):
            with pytest.raises(DamagedArtifact, match=f"rows {10 * number} to {last} of 35 cannot be read"):
                file.rows(start, stop)
        for others in ((0, 10 * number), (last + 1, 35)):
            assert (file.rows(*others) == 1).all()


def test_rows_come_in_order(tmp_path):
    writer = ActivationWriter(tmp_path / "a.h5", header(), 10)
    writer.write(0, np.zeros((4, D_MODEL), dtype=np.float32))
    for start in (3, 5):
        with pytest.raises(ValueError, match=f"{start} on are not the next ones: 4"):
            writer.write(start, np.zeros((2, D_MODEL), dtype=np.float32))
    writer.close()


def test_a_file_cut_off_while_it_is_open_is_named(tmp_path):
    path = tmp_path / "shard_0003.h5"
    write(path, torch.randn(3 * (1 << 20) // (4 * D_MODEL), D_MODEL))
    with open_activations(path) as file:
        file.rows(0, file.chunk_rows)
        os.truncate(path, path.stat().st_size - (1 << 20))
        with pytest.raises(DamagedArtifact, match=r"shard_0003.*rows 19,659 to 19,659 of 19,660"):
            file.rows(0, file.n_rows)


def test_files_that_are_no_files_of_ours_are_named(tmp_path):
    whole = tmp_path / "whole.h5"
    write(whole, torch.randn(20_000, D_MODEL))
    truncated, text, other = tmp_path / "truncated.h5", tmp_path / "text.h5", tmp_path / "other.h5"
    truncated.write_bytes(whole.read_bytes()[:100_000])
    text.write_text("cells")
    with h5py.File(other, "w") as file:
        file["x"] = 1
    for path in (truncated, text, other, tmp_path / "absent.h5"):
        for read in (open_activations, read_tokens, read_item_ptr, read_special_rows, TokenIds):
            with pytest.raises(DamagedArtifact, match=path.name):
                read(path)
    assert [stored_attribute(path, "fingerprint") for path in (truncated, text, tmp_path / "absent.h5")] == [None] * 3
    assert (stored_attribute(other, "fingerprint"), stored_attribute(whole, "fingerprint")) == ("", "f00d")
    with pytest.raises(DamagedArtifact, match="whole"):
        read_tokens(whole)


def test_attributes_cut_off_are_damage(tmp_path):
    write(tmp_path / "a.h5", torch.randn(10, D_MODEL))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file.attrs["mean"]
    with pytest.raises(DamagedArtifact, match=r"a\.h5"):
        open_activations(tmp_path / "a.h5")


def test_compression_without_the_plugin_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(UserError, match="pip install hdf5plugin"):
        ActivationWriter(tmp_path / "a.h5", header(), 10, "lz4")


_NO_ROOM = """
import resource, sys
import numpy as np
from pathlib import Path
from sae_genomics.activations.format.store import ActivationWriter, Header
from sae_genomics.activations.format.token_store import TokenShard, write_tokens

path, n = Path(sys.argv[1]), 300_000
ids = np.arange(n)
small, pointers = ids.astype("i4"), np.array([0, n])

def tokens():
    write_tokens(path, TokenShard(ids, small, small, small, ids.astype("f4"), ids == 0, pointers, {"value": ids.astype("f4")}))

def activations(compression):
    writer = ActivationWriter(path, Header("", "", "", "mlp_out", 0, 0, 64, "float32"), n, compression)
    try:
        for start in range(0, n, 3000):
            writer.write(start, np.random.default_rng(0).random((3000, 64), dtype=np.float32))
        writer.finish(np.empty(0, dtype=np.int64), np.zeros(64), 1.0)
    finally:
        writer.close()

for room in (0, 700, 100_000, 2_500_000):
    for write in (tokens, lambda: activations("none"), lambda: activations("lz4")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))  # writing more is an error
        try:
            write()
        except OSError as error:
            sys.stdout.write(f"{error.errno} {error.filename}\\n")
"""


def test_no_room_to_write_is_one_error_and_a_clean_end(tmp_path):
    """HDF5 by itself brings the interpreter down when it ends after this."""
    path = tmp_path / "a.h5"
    done = subprocess.run([sys.executable, "-c", _NO_ROOM, str(path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{errno.EFBIG} {path}"] * 12
