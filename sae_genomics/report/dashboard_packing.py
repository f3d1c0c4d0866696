"""How arrays and long lists of texts are packed into the page, so that 100,000 features stay small.

A number that a reader sees with three digits needs no 32 bits. `Logs` and `Steps` say what a column is rounded to; the script turns
it back into numbers. Integers of several bytes are stored one byte after the other (all first bytes, then all second bytes), because
gzip then finds the high bytes alike.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
LONG_LIST = 500  # texts; longer lists are packed
_NOT_A_NUMBER = -32768


@dataclass(frozen=True)
class Logs:
    """Numbers of 0 or more, as uint16 steps of their logarithm. The error is at most 1.16 / per_decade of the number."""

    per_decade: int

    def encode(self, values: Array) -> npt.NDArray[np.uint16]:
        """0 is no number, 1 is zero, 2 and more are powers of ten around 1."""
        numbers = np.asarray(values, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.round(np.log10(numbers) * self.per_decade) + 32768
        codes = np.where(numbers > 0, np.clip(np.nan_to_num(step, posinf=65535), 2, 65535), 1)
        return np.where(np.isfinite(numbers), codes, 0).astype(np.uint16)

    @property
    def how(self) -> dict[str, float]:
        """What the script is told."""
        return {"logs": self.per_decade}


@dataclass(frozen=True)
class Steps:
    """Numbers as int16 multiples of `size`. No number changes sides of `border`: what is below it stays below it."""

    size: float
    border: float | None = None

    def encode(self, values: Array) -> npt.NDArray[np.int16]:
        """-32768 is no number."""
        scaled = np.asarray(values, np.float64) / self.size
        codes = np.round(scaled)
        if self.border is not None:
            border = self.border / self.size
            near = np.abs(scaled - border) < 1
            codes = np.where(near, np.where(scaled < border, np.floor(scaled), np.ceil(scaled)), codes)
        return np.where(np.isnan(scaled), _NOT_A_NUMBER, np.clip(codes, -32767, 32767)).astype(np.int16)

    @property
    def how(self) -> dict[str, float]:
        """What the script is told."""
        return {"step": self.size}


@dataclass(frozen=True)
class Coded:
    """An array, and how it is rounded."""

    values: Array
    encoding: Logs | Steps


def packed_array(block: Array | Coded) -> dict[str, Any]:
    """An array as the script reads it back: its dtype, how it was rounded, and gzip of its bytes in base64."""
    how = block.encoding.how if isinstance(block, Coded) else {}
    values = block.encoding.encode(block.values) if isinstance(block, Coded) else block
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    planes = np.ascontiguousarray(little.view(np.uint8).reshape(len(little), little.itemsize).T)
    return {"dtype": values.dtype.name, **how, "data": _packed(planes.tobytes())}


def packed_texts(texts: list[str]) -> dict[str, str]:
    """A list of texts: gzip of its JSON in base64."""
    return {"data": _packed(json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode())}


def is_long(value: Any) -> bool:
    """Whether it is a list of texts that is better packed."""
    return isinstance(value, list) and len(value) >= LONG_LIST and all(isinstance(each, str) for each in value)


def unpacked_array(block: Mapping[str, Any]) -> Array:
    """The array of `packed_array`, as the script has it: a rounded one as numbers."""
    dtype = np.dtype(block["dtype"]).newbyteorder("<")
    planes = np.frombuffer(gzip.decompress(base64.b64decode(block["data"])), np.uint8).reshape(dtype.itemsize, -1)
    codes = np.ascontiguousarray(planes.T).view(dtype).ravel()
    if "logs" in block:
        numbers = np.where(codes == 1, 0.0, 10 ** ((codes.astype(np.float64) - 32768) / block["logs"]))
        return np.where(codes == 0, np.nan, numbers).astype(np.float32)
    if "step" in block:
        return np.where(codes == _NOT_A_NUMBER, np.nan, codes * block["step"]).astype(np.float32)
    return codes


def unpacked_texts(block: Mapping[str, str]) -> list[str]:
    """The list of `packed_texts`."""
    found: list[str] = json.loads(gzip.decompress(base64.b64decode(block["data"])))
    return found


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode("ascii")
