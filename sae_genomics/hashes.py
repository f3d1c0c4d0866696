"""What a file or folder holds, as a short hash: the root of every fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

WHOLE_FILE_LIMIT = 1 << 30
_BLOCK = 1 << 16
_SAMPLES = 256
_HDF5 = b"\x89HDF\r\n\x1a\n"


def hash_values(*values: Any) -> str:
    """16 hexadecimal digits of BLAKE2b over the values' canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def hash_file(path: Path) -> str:
    """Hash of a file's content, not of its name, folder or times. So a copy is the same file.

    Up to 1 GiB every byte counts. Reading more would take minutes on a login node. Of a larger file the size and 256
    evenly spaced 64 KiB blocks (the first and the last among them) count, and of HDF5 also what `hdf5_hash` lists.
    """
    size = os.stat(path).st_size
    digest = hashlib.blake2b(digest_size=8)
    digest.update(str(size).encode())
    with open(path, "rb") as file:
        if size <= WHOLE_FILE_LIMIT:
            while block := file.read(1 << 22):
                digest.update(block)
            return digest.hexdigest()
        for sample in range(_SAMPLES):
            file.seek(max(0, size - _BLOCK) * sample // (_SAMPLES - 1))
            digest.update(file.read(_BLOCK))
        file.seek(0)
        is_hdf5 = file.read(len(_HDF5)) == _HDF5
    if is_hdf5:
        from sae_genomics.hdf5_hash import hash_hdf5

        digest.update(hash_hdf5(path))
    return digest.hexdigest()
