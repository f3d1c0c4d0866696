"""Content hashes: every byte counts, whatever the file's times say."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics import content
from sae_genomics.errors import DamagedArtifact


def flip(path: Path, at: int) -> None:
    """Flip a byte; size and times stay."""
    state = path.stat()
    with open(path, "r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 0x40]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("name", ["plan.json", "sae_weights.safetensors", "features.parquet"])
def test_a_flipped_byte_is_damage_that_names_its_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(0).bytes(10_000_000))
    entry = content.record(path)
    content.check(path, entry)
    for at in (0, 4_200_000, 9_999_999):
        flip(path, at)
        with pytest.raises(DamagedArtifact) as raised:
            content.check(path, entry)
        assert raised.value.path == path
        assert str(path) in str(raised.value)
        assert not content.is_whole(path, entry)
        flip(path, at)
        content.check(path, entry)


def test_a_file_that_is_gone_or_shorter_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("{}")
    entry = content.record(path)
    path.write_text("{")
    with pytest.raises(DamagedArtifact):
        content.check(path, entry)
    path.unlink()
    with pytest.raises(DamagedArtifact):
        content.check(path, entry)


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file laid out like a shard's activations, small enough to try many places in it."""
    path = tmp_path_factory.mktemp("content") / "shard_0000.h5"
    rng = np.random.default_rng(1)
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["shard"] = 0
        for name, shape, chunk in (("activations", (300, 16), (64, 16)), ("gene", (300,), (64,))):
            file.create_dataset(name, data=rng.normal(size=shape).astype("f4"), chunks=chunk, fletcher32=True)
    return path


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small activations treated like large ones."""
    monkeypatch.setattr(content, "WHOLE_FILE_BYTES", 1000)


def chunks_of(path: Path) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    with h5py.File(path) as file:
        for name in ("activations", "gene"):
            file[name].id.chunk_iter(lambda chunk: found.append((chunk.byte_offset, chunk.size)))
    return found


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_any_byte_of_large_activations_counts(activations: Path, share: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "WHOLE_FILE_BYTES", 1000)
        at = int(share * activations.stat().st_size)
        entry, chunks = content.record(activations), chunks_of(activations)
        assert set(entry) == {"size", "mtime_ns", "hash", "structure"}
        flip(activations, at)
        try:
            assert not content.is_whole(activations, entry), f"byte {at}"
            if not any(
                start <= at < start + size for start, size in chunks
            ):  # reading verifies chunks, and nothing but the structure the rest
                with pytest.raises(DamagedArtifact):
                    content.check(activations, entry)
        finally:
            flip(activations, at)
        content.check(activations, entry)
        assert content.is_whole(activations, entry)


def test_no_chunk_of_large_activations_is_read_to_check_them(activations: Path, large: None) -> None:
    """Terabytes are verified as they are read, not before."""
    entry = content.record(activations)
    start, size = chunks_of(activations)[0]
    flip(activations, start + size // 2)
    try:
        content.check(activations, entry)
        assert content.record(activations)["hash"] == entry["hash"]
        with h5py.File(activations) as file, pytest.raises(OSError, match="filter returned failure"):
            file["activations"][:64]
    finally:
        flip(activations, start + size // 2)


def test_other_values_have_another_hash_and_the_same_values_the_same(
    tmp_path: Path, activations: Path, large: None
) -> None:
    hashes = []
    for number, change in enumerate((0.0, 0.0, 1.0)):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(activations.read_bytes())
        with h5py.File(path, "r+") as file:
            file["activations"][17, 3] = 2.5 + change
        hashes.append(content.record(path)["hash"])
    assert hashes[0] == hashes[1] != hashes[2]
