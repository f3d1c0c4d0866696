"""The numbers on disk: float32, float16, or bfloat16 as uint16 (HDF5 has no bfloat16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

DISK_DTYPES: dict[str, type[np.generic]] = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


def torch_dtype(name: str) -> torch.dtype:
    """`float32`, `float16` or `bfloat16` as torch knows it."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def item_bytes(name: str) -> int:
    """Bytes of one stored number."""
    return np.dtype(DISK_DTYPES[name]).itemsize


def as_tensor(stored: npt.NDArray[Any], name: str) -> torch.Tensor:
    """Numbers as they stand on disk, seen as a tensor of their true dtype. Nothing is copied."""
    if name == "bfloat16":
        return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(stored)


def as_disk(values: torch.Tensor) -> npt.NDArray[Any]:
    """A CPU tensor seen as an array of the dtype it has on disk. Nothing is copied."""
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16).numpy().view(np.uint16)
    array: npt.NDArray[Any] = values.numpy()
    return array


def to_float32(
    stored: npt.NDArray[Any], name: str, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Numbers as they stand on disk, as float32; every stored value is exactly one.

    out: float32, same shape, written and returned; float32 input without `out` is returned as it is.
    """
    if name == "float32" and out is None:
        return stored
    if out is None:
        out = np.empty(stored.shape, dtype=np.float32)
    torch.from_numpy(out).copy_(as_tensor(stored, name))
    return out
