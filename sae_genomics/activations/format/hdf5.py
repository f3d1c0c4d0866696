"""What the HDF5 files of tokens and of activations share: checksums, versions, and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from sae_genomics.errors import DamagedArtifact

CHUNK_BYTES = 1 << 20


def growing(file: h5py.File, name: str, dtype: npt.DTypeLike, length: int) -> h5py.Dataset:
    """An empty one-dimensional dataset with checksums."""
    most = CHUNK_BYTES // np.dtype(dtype).itemsize
    return file.create_dataset(
        name,
        (length,),
        dtype,
        chunks=(min(max(length, 1024), most),),
        maxshape=(None,),
        fletcher32=True,
        track_times=False,
    )


def open_file(path: Path, *versions: int) -> h5py.File:
    """Open for reading. Raises DamagedArtifact when that is not possible or the format version is none of `versions`."""
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CHUNK_BYTES)  # the chunk that two reads share; many files are open
    except FileNotFoundError:
        raise DamagedArtifact(f"{path} is not there", path) from None
    except OSError as error:
        raise DamagedArtifact(f"{path} cannot be opened: {error}", path) from None
    version = file.attrs.get("format_version")
    if version not in versions:
        file.close()
        known = " and ".join(map(str, versions))
        raise DamagedArtifact(f"{path} has format version {version}; this program reads {known}", path)
    return file


@contextmanager
def opened(path: Path, *versions: int) -> Iterator[h5py.File]:
    """The same as a context manager."""
    file = open_file(Path(path), *versions)
    try:
        yield file
    finally:
        file.close()


@contextmanager
def damage(path: Path, what: str) -> Iterator[None]:
    """Turn errors of reading into DamagedArtifact. what: the problem, for a reader."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DamagedArtifact(f"{path} is damaged: {what} ({error})", path) from error


def stored_attribute(path: Path, name: str) -> str | None:
    """A text in a file's header; None where the file is not there or cannot be read, \"\" where it does not have it."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get(name, ""))
    except OSError:
        return None
