"""What an HDF5 file holds, when it is too large to be read: all of its structure, and samples of its values.

Nothing here depends on time or folder. So a copy of a file is the same file. What is read, and therefore noticed:

- every group, dataset and link: its name, shape, type and attributes;
- the index of every table (cell ids of `obs`, gene ids of `var`), whole;
- all other datasets, smallest first, whole, as long as they are `_WHOLE_BYTES` together;
- of every larger dataset `_SAMPLES` evenly spaced chunks as they are stored, the first and the last among them.

A change of a value in a large dataset, between two samples, is not noticed.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_WHOLE_BYTES = 1 << 28
_SAMPLES = 64
_SAMPLED_BYTES = 1 << 24  # of one dataset, so that large chunks do not make it slow
_BLOCK_BYTES = 1 << 16  # of one sample of a dataset without chunks
_OBJECT_BYTES = 64  # what a text of variable length counts as: it takes as long to read as so many bytes
_ROWS_AT_ONCE = 1 << 18
_TABLES = ("obs", "var", "raw.var")  # datasets in files of 2018, groups since then


def hash_hdf5(path: Path) -> bytes:
    """Digest of an HDF5 file's structure and sampled values; empty where the file cannot be opened as HDF5."""
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  registers further compressions
    digest = hashlib.blake2b(digest_size=16)
    try:
        with h5py.File(path, "r", locking=False) as file:
            datasets = _hash_structure(file, digest)
            whole = _read_whole(file, datasets)
            for name, dataset in datasets.items():
                digest.update(b"whole" if name in whole else b"sampled")
                try:
                    _hash_values(dataset, digest, name in whole)
                except (OSError, RuntimeError):  # a compression that is not installed, or damage: told by who reads it
                    digest.update(b"unreadable")
    except OSError:
        return b""
    return digest.digest()


def _hash_structure(file: h5py.File, digest: hashlib.blake2b) -> dict[str, h5py.Dataset]:
    """Hash every name, shape, type and attribute; returns the datasets by name, in order."""
    links: dict[str, Any] = {}
    objects: dict[str, Any] = {"": file}
    file.visititems_links(lambda name, link: links.__setitem__(name, link))
    file.visititems(lambda name, item: objects.__setitem__(name, item))
    items = {**links, **objects}
    for name, item in sorted(items.items()):
        _hash_value(digest, file, name)
        if isinstance(item, h5py.Dataset):
            _hash_value(digest, file, ("dataset", item.shape, _type_name(item.dtype)))
        elif isinstance(item, h5py.SoftLink | h5py.ExternalLink):
            _hash_value(digest, file, ("link", item.path, getattr(item, "filename", "")))
        for key in sorted(getattr(item, "attrs", ())):
            _hash_value(digest, file, key)
            with suppress(OSError, TypeError):  # an attribute of a type that h5py cannot read
                _hash_value(digest, file, item.attrs[key])
    return {name: item for name, item in sorted(items.items()) if isinstance(item, h5py.Dataset)}


def _type_name(dtype: np.dtype[Any]) -> str:
    if dtype.names:
        return str([(name, _type_name(dtype[name])) for name in dtype.names])
    text = h5py.check_string_dtype(dtype)
    further = h5py.check_vlen_dtype(dtype) or h5py.check_ref_dtype(dtype)
    return f"{dtype.str} {dtype.shape} {tuple(text) if text else further or ''}"


def _hash_value(digest: hashlib.blake2b, file: h5py.File, value: Any) -> None:
    """Hash a small value, with its type, so that no two values give the same bytes."""
    if isinstance(value, h5py.Reference):
        value = f"reference to {file[value].name if value else 'nothing'}"
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        data = value.tobytes()
        digest.update(f"{value.dtype.str} {value.shape} {len(data)}:".encode())
        digest.update(data)
    elif isinstance(value, np.ndarray | list | tuple):
        digest.update(f"list {np.shape(value) if isinstance(value, np.ndarray) else len(value)}:".encode())
        for each in value.ravel().tolist() if isinstance(value, np.ndarray) else value:
            _hash_value(digest, file, each)
    else:
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        digest.update(f"text {len(data)}:".encode())
        digest.update(data)


def _read_whole(file: h5py.File, datasets: dict[str, h5py.Dataset]) -> set[str]:
    """Names of the datasets of which every value counts."""
    prefixes = [
        f"{name}/{index}"
        for name, table in {each: file.get(each) for each in ("obs", "var", "raw/var", "raw.var")}.items()
        if isinstance(table, h5py.Group)
        for index in [_text(table.attrs.get("_index", "_index"))]
    ]
    whole = {
        name
        for name in datasets
        if name in _TABLES or any(name == prefix or name.startswith(f"{prefix}/") for prefix in prefixes)
    }
    room = _WHOLE_BYTES
    for size, name in sorted((_cost(dataset), name) for name, dataset in datasets.items() if name not in whole):
        room -= size
        if room < 0:
            break
        whole.add(name)
    return whole


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _cost(dataset: h5py.Dataset) -> int:
    return int(dataset.size or 0) * (_OBJECT_BYTES if dataset.dtype.hasobject else dataset.dtype.itemsize)


def _hash_values(dataset: h5py.Dataset, digest: hashlib.blake2b, whole: bool) -> None:
    if not dataset.size:
        return
    if dataset.chunks and not dataset.dtype.hasobject and not dataset.is_virtual:
        _hash_chunks(dataset, digest, whole)
    elif not dataset.shape:
        _hash_value(digest, dataset.file, dataset[()])
    else:
        # Texts of variable length stand elsewhere in the file; their dataset's own bytes do not show a change.
        for rows in _row_blocks(dataset, whole):
            _hash_rows(dataset, digest, rows)


def _hash_rows(dataset: h5py.Dataset, digest: hashlib.blake2b, rows: slice) -> None:
    values = dataset[rows]
    items = values.tolist() if dataset.dtype.hasobject and values.ndim == 1 else None
    if items and isinstance(items[0], bytes):  # one text each, the usual case: fast
        digest.update(np.fromiter(map(len, items), np.int64, len(items)).tobytes())
        digest.update(b"".join(items))
    else:
        _hash_value(digest, dataset.file, values)


def _hash_chunks(dataset: h5py.Dataset, digest: hashlib.blake2b, whole: bool) -> None:
    """Chunks as they are stored, packed or not; they are found by where they begin, without a list of all chunks."""
    sides = [range(0, length, side) for length, side in zip(dataset.shape, dataset.chunks, strict=True)]
    n_chunks = math.prod(map(len, sides))
    if whole:
        starts: Iterator[tuple[int, ...]] = itertools.product(*sides)
    else:
        counts = [len(side) for side in sides]
        chosen = _evenly(n_chunks, math.prod(dataset.chunks) * dataset.dtype.itemsize)
        chunk_indices = (np.unravel_index(number, counts) for number in chosen)
        starts = (
            tuple(side[int(at)] for side, at in zip(sides, chunk_index, strict=True)) for chunk_index in chunk_indices
        )
    for start in starts:
        if dataset.id.get_chunk_info_by_coord(start).byte_offset is None:
            digest.update(b"nothing")  # a chunk that was never written
            continue
        mask, data = dataset.id.read_direct_chunk(start)
        digest.update(f"{mask} {len(data)}:".encode())
        digest.update(data)


def _row_blocks(dataset: h5py.Dataset, whole: bool) -> Iterator[slice]:
    n_rows, row_bytes = len(dataset), _cost(dataset) // len(dataset)
    if whole:
        size = max(1, min(_ROWS_AT_ONCE, (1 << 26) // max(row_bytes, 1)))
        numbers = range(-(-n_rows // size))
    else:
        size = max(1, _BLOCK_BYTES // max(row_bytes, 1))
        numbers = _evenly(-(-n_rows // size), size * row_bytes)
    for number in numbers:
        yield slice(number * size, min((number + 1) * size, n_rows))


def _evenly(n: int, n_bytes: int) -> Any:
    """Some of the numbers 0 to n - 1, evenly spaced, the first and the last among them; each stands for n_bytes."""
    samples = max(2, min(_SAMPLES, _SAMPLED_BYTES // max(n_bytes, 1)))
    return range(n) if n <= samples else [(n - 1) * each // (samples - 1) for each in range(samples)]
