"""What a finished file holds, as hashes: recorded when it is written, compared when it is read again.

A file's *content hash* is BLAKE2b of its bytes. Activations, and the row-wise copy of the counts, are an exception. A layer's files can be
terabytes, and each of their chunks has a Fletcher-32 checksum already. From `WHOLE_FILE_BYTES` on, their content hash is therefore taken over those checksums and over all bytes that
are outside chunks: every byte counts, and no chunk is read. The *structure hash* is over the bytes outside chunks alone. They
hold the attributes and the index that says where each chunk is. Reading verifies the chunks; `check` verifies the structure before
that, because nothing else would.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from sae_genomics.errors import DamagedArtifact, not_as_written

WHOLE_FILE_BYTES = 16 << 20  # up to here activations are hashed like any other file
_BLOCK = 1 << 22
_CHECKSUM_BYTES = 4
_VERIFIED_ON_READING = (
    "activations",
    "X/indptr",
)  # in files whose chunks have checksums, and whose readers act on damage


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def _new_hash() -> _Hash:
    return hashlib.blake2b(digest_size=16)


def content_hash(path: Path) -> str:
    """32 hexadecimal digits of BLAKE2b over a file's bytes. Raises OSError."""
    digest = _new_hash()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def record(path: Path) -> dict[str, Any]:
    """What a manifest keeps of a finished file: `size`, `mtime_ns`, `hash`, and `structure` for large activations."""
    state = os.stat(path)
    entry: dict[str, Any] = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
    large = path.suffix == ".h5" and state.st_size > WHOLE_FILE_BYTES
    hashes = _store_hashes(path) if large else None
    if hashes is None:
        return entry | {"hash": content_hash(path)}
    return entry | {"hash": hashes[0], "structure": hashes[1]}


def check(path: Path, entry: dict[str, Any]) -> None:
    """Verify a file before it is read: all of it, or the structure of large activations, whose chunks are verified on reading.

    entry: what `record` said when the file was written. Raises DamagedArtifact naming the file.
    """
    if "hash" not in entry:  # recorded by a version that kept sizes alone
        return
    try:
        if os.stat(path).st_size != entry["size"]:
            found, wanted = None, entry["hash"]
        elif "structure" in entry:
            hashes = _store_hashes(path, with_checksums=False)
            found, wanted = hashes[1] if hashes else None, entry["structure"]
        else:
            found, wanted = content_hash(path), entry["hash"]
    except OSError as error:
        raise DamagedArtifact(f"{path} cannot be read: {error.strerror or error}", path) from None
    if found != wanted:
        raise DamagedArtifact(not_as_written(path), path)


def is_whole(path: Path, entry: dict[str, Any]) -> bool:
    """Whether every byte of a file is as it was recorded. Reads all of it."""
    if "structure" not in entry:
        return "hash" not in entry or content_hash(path) == entry["hash"]
    hashes = _store_hashes(path, with_chunks=True)
    return hashes is not None and hashes[0] == entry["hash"]


def _store_hashes(path: Path, with_checksums: bool = True, with_chunks: bool = False) -> tuple[str, str] | None:
    """(content hash, structure hash) of a file whose chunks have checksums; None where it is not one, or cannot be read.

    with_checksums: without them only the structure hash means something. with_chunks: read every chunk too; None where one is damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            datasets: list[h5py.Dataset] = []
            file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
            if not any(name in file for name in _VERIFIED_ON_READING) or any(not each.fletcher32 for each in datasets):
                return None
            chunks: list[tuple[int, int]] = []  # offset, size
            for each in datasets:
                each.id.chunk_iter(lambda chunk: chunks.append((chunk.byte_offset, chunk.size)))
                if with_chunks and not _chunks_are_whole(each):
                    return None
    except (OSError, RuntimeError, ValueError, KeyError):
        return None
    chunks.sort()
    structure, content = _new_hash(), _new_hash()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for start, stop in _gaps(chunks, os.fstat(descriptor).st_size):
            for data in _read(descriptor, start, stop):
                structure.update(data)
        content.update(structure.hexdigest().encode())
        if with_checksums:
            for offset, size in chunks:
                content.update(os.pread(descriptor, _CHECKSUM_BYTES, offset + size - _CHECKSUM_BYTES))
    finally:
        os.close(descriptor)
    return content.hexdigest(), structure.hexdigest()


def _chunks_are_whole(dataset: Any) -> bool:
    """Read every chunk; HDF5 compares its checksum."""
    try:
        for chunk in dataset.iter_chunks():
            dataset[chunk]
    except (OSError, RuntimeError):
        return False
    return True


def _gaps(chunks: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """The stretches of a file that no chunk covers. chunks: (offset, size), ascending."""
    position = 0
    for offset, length in chunks:
        if offset > position:
            yield position, offset
        position = max(position, offset + length)
    if size > position:
        yield position, size


def _read(descriptor: int, start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        data = os.pread(descriptor, min(_BLOCK, stop - start), start)
        if not data:
            return
        start += len(data)
        yield data
