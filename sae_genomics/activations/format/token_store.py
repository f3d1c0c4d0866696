"""The HDF5 file of a shard's stored tokens, which says what each row of every layer's file is.

`docs/activations.md` lists datasets and attributes. Files of format 1, which knew cells alone, are read into the same class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sae_genomics.activations.format.hdf5 import damage, growing, open_file, opened
from sae_genomics.activations.format.output import OutputFile

FORMAT_VERSION = 2
_VERSIONS = (1, FORMAT_VERSION)
_ARRAYS: dict[str, Any] = {
    "item": np.int64, "token": np.int32, "unit": np.int32, "position": np.int32, "weight": np.float32, "special": np.bool_,
}  # fmt: skip
_READ_AT_ONCE = 1 << 22  # rows of a tokens file
_CELL_NOUNS = {"item": "cell", "unit": "gene", "label": "cell type"}


@dataclass(frozen=True)
class TokenShard:
    """The stored tokens of a shard's items, one row per token, in the same order as every layer's rows."""

    item: npt.NDArray[np.int64]
    """[T], row of the item in the input."""
    token: npt.NDArray[np.int32]
    """[T], vocabulary id."""
    unit: npt.NDArray[np.int32] | None
    """[T], row in units.parquet, -1 for none; None in a file of format 1, which knew vocabulary ids alone: see `units`."""
    position: npt.NDArray[np.int32]
    """[T], position within the item. Format 1 did not record it: there the number of the row among its item's stored rows."""
    weight: npt.NDArray[np.float32]
    """[T], the count for cells (0 for special tokens), 1 otherwise."""
    special: npt.NDArray[np.bool_]
    """[T], `<cls>`, `<eos>`, `<drug>`: anywhere in an item."""
    item_ptr: npt.NDArray[np.int64]
    """[items + 1]; the rows of item i are item_ptr[i] to item_ptr[i + 1]. An item of which nothing is stored has an entry too."""
    per_token: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Arrays [T] that only one model family reads, such as Tahoe-x1's `value`."""
    fingerprint: str = ""
    shard: int = 0
    kind: str = "cells"
    """Name of the data kind."""
    nouns: dict[str, str] = field(default_factory=_CELL_NOUNS.copy)
    """What an item, a unit and a label are called in this data kind."""
    sampled_by: str = "position"
    """What drew the stored tokens, beside the seed and the item, where not all are stored: position | token. Files of format 1: token."""

    @property
    def n_items(self) -> int:
        return len(self.item_ptr) - 1

    def __len__(self) -> int:
        return int(self.item_ptr[-1])

    @property
    def item_in_shard(self) -> npt.NDArray[np.int64]:
        """int64 [T], index of each row's item among the shard's items."""
        return np.repeat(np.arange(self.n_items), np.diff(self.item_ptr))

    def units(self, lookup: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """int32 [T], row of units.parquet of each row; -1 for special tokens and for tokens that are no unit of this run.

        lookup: int32, unit of each vocabulary id, -1 for none. The array is the caller's.
        """
        if self.unit is not None:
            return np.where(self.special, np.int32(-1), self.unit)
        known = (self.token >= 0) & (self.token < len(lookup)) & ~self.special
        return np.where(known, lookup[np.where(known, self.token, 0)], -1).astype(np.int32)


def write_tokens(path: Path, tokens: TokenShard) -> None:
    """Write a shard's tokens to `path`, which the caller makes atomic. Raises OSError naming it."""
    assert tokens.unit is not None, "tokens of format 1 are read, never written"
    with OutputFile(path) as output:
        with h5py.File(output, "w") as file:
            arrays: dict[str, npt.NDArray[Any]] = {
                name: np.asarray(getattr(tokens, name), dtype=dtype) for name, dtype in _ARRAYS.items()
            }
            arrays["item_ptr"] = np.asarray(tokens.item_ptr, dtype=np.int64)
            for name, array in (arrays | tokens.per_token).items():
                growing(file, name, array.dtype, len(array))[...] = array
            file.attrs.update(
                format_version=FORMAT_VERSION,
                fingerprint=tokens.fingerprint,
                shard=tokens.shard,
                n_rows=len(tokens),
                data_kind=tokens.kind,
                sampled_by=tokens.sampled_by,
                **{f"noun_{name}": noun for name, noun in tokens.nouns.items()},
            )
        output.check()


def read_tokens(path: Path) -> TokenShard:
    """Read a shard's tokens, of format 1 or 2. Raises DamagedArtifact naming the file."""
    with opened(path, *_VERSIONS) as file, damage(path, "its tokens cannot be read"):
        facts: dict[str, Any] = {"fingerprint": str(file.attrs["fingerprint"]), "shard": int(file.attrs["shard"])}
        if file.attrs["format_version"] == 1:
            item_ptr = file["cell_ptr"][:]
            special = np.zeros(int(item_ptr[-1]), dtype=bool)
            special[_special_rows(file)] = True
            number = np.arange(len(special)) - np.repeat(item_ptr[:-1], np.diff(item_ptr))
            return TokenShard(
                file["cell"][:], file["gene"][:], None, number.astype(np.int32), file["expression"][:], special, item_ptr,
                {"value": file["value"][:]}, sampled_by="token", **facts,
            )  # fmt: skip
        further = set(file) - set(_ARRAYS) - {"item_ptr"}
        return TokenShard(
            **{name: file[name][:] for name in (*_ARRAYS, "item_ptr")},
            per_token={name: file[name][:] for name in sorted(further)},
            kind=str(file.attrs["data_kind"]),
            nouns={
                name.removeprefix("noun_"): str(file.attrs[name]) for name in file.attrs if name.startswith("noun_")
            },
            sampled_by=str(file.attrs["sampled_by"]),
            **facts,
        )


def read_item_ptr(path: Path) -> npt.NDArray[np.int64]:
    """Where each item's rows begin, and the last one's end: int64 [items + 1]. Raises DamagedArtifact naming the file."""
    with opened(path, *_VERSIONS) as file, damage(path, "its item_ptr cannot be read"):
        pointers: npt.NDArray[np.int64] = file["cell_ptr" if file.attrs["format_version"] == 1 else "item_ptr"][:]
        return pointers


def read_special_rows(path: Path) -> npt.NDArray[np.int64]:
    """The rows of special tokens, ascending: int64. Holds a part of the file's rows at a time. Raises DamagedArtifact."""
    with opened(path, *_VERSIONS) as file, damage(path, "its special tokens cannot be read"):
        return _special_rows(file)


def _special_rows(file: h5py.File) -> npt.NDArray[np.int64]:
    if file.attrs["format_version"] == 1:  # there they are the first rows of each cell
        return np.ravel(file["cell_ptr"][:-1][:, None] + np.arange(int(file.attrs["n_special"])))
    special = file["special"]
    parts = [
        start + np.flatnonzero(special[start : start + _READ_AT_ONCE])
        for start in range(0, len(special), _READ_AT_ONCE)
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


class TokenIds:
    """The vocabulary ids of a shard's stored tokens, to be read a part at a time. Closes like a file."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file = open_file(self.path, *_VERSIONS)
        with damage(self.path, "its tokens cannot be read"):
            self._ids = self._file["gene" if self._file.attrs["format_version"] == 1 else "token"]

    def rows(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """int32 [stop - start]. Raises DamagedArtifact naming the file."""
        with damage(self.path, "its tokens cannot be read"):
            ids: npt.NDArray[np.int32] = self._ids[start:stop]
            return ids

    def close(self) -> None:
        self._file.close()
