"""The chunks of a file that was never finished, which HDF5 cannot open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.checksum import fletcher32
from sae_genomics.kernels.chunks import CHECKSUM


def read_chunks(
    path: Path, offsets: npt.NDArray[np.int64], shape: tuple[int, int], dtype: npt.DTypeLike
) -> Iterator[npt.NDArray[Any]]:
    """The rows of chunks that a writer stored with checksums alone. Raises ValueError at a damaged one.

    shape: rows of a chunk, columns. The array is overwritten by the next one.
    """
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    chunk = np.empty(n_bytes + CHECKSUM.itemsize, dtype=np.uint8)
    rows = chunk[:n_bytes].view(dtype).reshape(shape)
    with open(path, "rb", buffering=0) as file:
        for offset in offsets:
            file.seek(int(offset))
            if file.readinto(chunk.data) != len(chunk):
                raise ValueError(f"{path} is too short")
            if fletcher32(chunk[:n_bytes].view(np.uint16)) != chunk[n_bytes:].view(CHECKSUM)[0]:
                raise ValueError(f"{path} is damaged")
            yield rows
