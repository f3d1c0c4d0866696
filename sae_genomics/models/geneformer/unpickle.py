"""Dictionaries out of pickle files, without running anything that stands in them.

A pickle is a program: it may import any function and call it. Geneformer's dictionaries hold strings and numbers alone, and some of the
numbers are NumPy scalars. A scalar in a pickle is a call, `scalar(dtype, bytes)`. The five names that such calls use stand for
objects of this file, which read the bytes as a number; NumPy's own functions are never reached. Every other name is refused before it is
imported. The objects have no attributes that a pickle could set.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any, NoReturn

from sae_genomics.errors import UserError

MOST_BYTES = 256 << 20  # the largest published one has 4 MB
_FORMATS = {
    "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


class _Refused(Exception):
    """Something that a dictionary of strings and numbers does not hold."""


class _Dtype:
    """Of a NumPy scalar: its kind and size, and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, *given: Any):
        if not given or given[0] not in _FORMATS:
            raise _Refused("a number of an unknown type")
        self.code, self.order = given[0], "<"

    def __setstate__(self, state: Any) -> None:
        """state: as numpy.dtype gives it, with `<`, `>` or `|` second."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|"):
            raise _Refused("a number of an unknown type")
        self.order = "<" if state[1] == "|" else state[1]


class _MakeDtype:
    """Stands for numpy.dtype."""

    __slots__ = ()

    def __call__(self, *given: Any) -> _Dtype:
        return _Dtype(*given)


class _Scalar:
    """Stands for numpy's `scalar`."""

    __slots__ = ()

    def __call__(self, *given: Any) -> int | float:
        if len(given) != 2 or not isinstance(given[0], _Dtype) or not isinstance(given[1], bytes):
            raise _Refused("a number that is not stored as numpy stores one")
        try:
            number: int | float = struct.unpack(given[0].order + _FORMATS[given[0].code], given[1])[0]
        except struct.error:
            raise _Refused("a number of the wrong size") from None
        return number


class _Encode:
    """Stands for `_codecs.encode`, by which protocols 0 to 2 write bytes."""

    __slots__ = ()

    def __call__(self, *given: Any) -> bytes:
        if len(given) != 2 or not isinstance(given[0], str) or given[1] != "latin1":
            raise _Refused("bytes in an unknown encoding")
        try:
            return given[0].encode("latin1")
        except UnicodeEncodeError:
            raise _Refused("bytes in an unknown encoding") from None


_KNOWN = {
    ("numpy", "dtype"): _MakeDtype(),
    ("numpy.core.multiarray", "scalar"): _Scalar(),
    ("numpy._core.multiarray", "scalar"): _Scalar(),
    ("_codecs", "encode"): _Encode(),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        known = _KNOWN.get((module_name, global_name))
        if known is None:
            raise _Refused(f"{module_name}.{global_name}")
        return known

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("a reference to something outside")


def read_dictionary(path: Path, content: bytes) -> dict[str, Any]:
    """A dictionary whose keys are strings and whose values are strings or numbers, from a .pkl or a .json file.

    content: of the file. NumPy's scalars become Python's numbers of the same value. Raises UserError for anything else.
    """
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} has {len(content):,} bytes; a dictionary of genes has at most {MOST_BYTES:,}")
    if path.suffix == ".json":
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            raise UserError(f"{path} is not valid JSON; copy or download it again") from None
    else:
        if content.startswith(b"version https://git-lfs"):
            raise UserError(f"{path} is a pointer of Git LFS, not the file itself; fix it with: git lfs pull")
        found = _unpickled(path, content)
    if not isinstance(found, dict):
        raise UserError(
            f"{path} should be one dictionary, but holds a {type(found).__name__}; copy or download it again"
        )
    for key, value in found.items():
        if type(key) is not str or type(value) not in (str, int, float):
            raise UserError(
                f"{path} should hold strings and numbers by name; the entry {key!r:.60} is not of that kind"
            )
    return found


def _unpickled(path: Path, content: bytes) -> Any:
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except _Refused as refused:
        raise UserError(
            f"{path} holds {refused}, which a dictionary of strings and numbers does not need and which may run code; "
            "nothing of it was run; download the file again from ctheodoris/Geneformer, or give it as .json"
        ) from None
    except (
        Exception
    ) as error:  # whatever a damaged program does to its machine: UnpicklingError, EOFError, IndexError ...
        raise UserError(
            f"{path} is not a readable pickle ({type(error).__name__}); copy or download it again, or give it as .json"
        ) from None
