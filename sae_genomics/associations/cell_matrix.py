"""features.h5ad: cells x features as AnnData, written while the cells come, for scanpy to take from there.

X is each cell's maximum activation, layers["mean"] its mean over gene tokens (zeros included), both CSR float32 with
implicit zeros. obs and obsm are the input's, rows = the cells used, with `heldout` added; a column of the input that has
this name becomes `heldout_input`. var is features.parquet; var_names are `F0`, `F1`, …, because a plain number names no
column for scanpy.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata.io import write_elem

from sae_genomics.kernels.arrays import ItemRows

_CHUNK = 1 << 16
_BLOCK_CELLS = 1 << 14


def feature_names(n: int) -> npt.NDArray[np.object_]:
    """var_names: F0, F1, …"""
    return np.array([f"F{feature}" for feature in range(n)], dtype=object)


class ItemAnnotations(Protocol):
    """What obs and obsm are made of: `CellTable` for cells."""

    @property
    def obs(self) -> pd.DataFrame:
        """All annotations."""

    @property
    def obsm_names(self) -> Sequence[str]:
        """Names of embeddings."""

    def obsm(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows of an embedding, ascending and distinct."""


class CellMatrixWriter:
    """Writes features.h5ad row by row. Use it in a `with` block; the caller makes the path atomic.

    path: the file. n_cells, d_sae: its shape. max_values: how many values there can be at most; default: n_cells x d_sae.
    """

    def __init__(self, path: Path, n_cells: int, d_sae: int, max_values: int | None = None):
        self.n_cells, self.d_sae = n_cells, d_sae
        most = n_cells * d_sae if max_values is None else min(max_values, n_cells * d_sae)
        self._index = np.int32 if most < 2**31 else np.int64  # scipy wants indices and indptr alike
        self._file = h5py.File(path, "w")
        self._file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        layers = self._file.create_group("layers")
        layers.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        self._groups = [self._sparse(self._file, "X"), self._sparse(layers, "mean")]
        self._indptr = np.zeros(n_cells + 1, dtype=np.int64)
        self._cells = 0

    def _sparse(self, parent: h5py.Group, name: str) -> h5py.Group:
        group = parent.create_group(name)
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        group.attrs["shape"] = np.array([self.n_cells, self.d_sae], dtype=np.int64)
        for part, dtype in (("data", np.float32), ("indices", self._index)):
            group.create_dataset(
                part, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(_CHUNK,), compression="gzip",
                compression_opts=1, shuffle=True,
            )  # fmt: skip
        return group

    def append(self, rows: ItemRows) -> None:
        """Add the next cells."""
        start = int(self._indptr[self._cells])
        stop = start + len(rows.feature)
        for group, values in zip(self._groups, (rows.maximum, rows.mean), strict=True):
            for part, array in (("data", values), ("indices", rows.feature)):
                group[part].resize((stop,))
                group[part][start:stop] = array
        n = len(rows.ptr) - 1
        self._indptr[self._cells + 1 : self._cells + 1 + n] = start + rows.ptr[1:]
        self._cells += n

    def finish(
        self, table: ItemAnnotations, rows: npt.NDArray[np.int64], heldout: npt.NDArray[np.bool_], features: pd.DataFrame,
        facts: dict[str, Any],
    ) -> None:  # fmt: skip
        """Add obs, var, obsm and uns.

        table: the input. rows: int64 [cells], the input's row of each cell. heldout: bool [cells].
        features: columns of features.parquet. facts: small values for uns.
        """
        if self._cells != self.n_cells:
            raise RuntimeError(f"features.h5ad: {self._cells} rows of {self.n_cells} were written")
        for group in self._groups:
            group.create_dataset("indptr", data=self._indptr.astype(self._index))
        obs = writable_frame(table.obs.iloc[rows], reserved=("heldout",))
        obs["heldout"] = heldout
        write_elem(self._file, "obs", obs)
        var = writable_frame(features.set_index(pd.Index(feature_names(len(features)))))
        write_elem(self._file, "var", var)
        self._copy_obsm(table, rows)
        write_elem(self._file, "uns", {"sae_genomics": facts})
        for name in ("varm", "obsp", "varp"):
            write_elem(self._file, name, {})

    def _copy_obsm(self, table: ItemAnnotations, rows: npt.NDArray[np.int64]) -> None:
        group = self._file.create_group("obsm")
        group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        for name, written in zip(table.obsm_names, writable_names(table.obsm_names), strict=True):
            for start in range(0, len(rows), _BLOCK_CELLS):
                part = rows[start : start + _BLOCK_CELLS]
                ascending, back = np.unique(part, return_inverse=True)
                values = table.obsm(name, ascending)[back]
                if start == 0:
                    shape = (len(rows), *values.shape[1:])
                    data = group.create_dataset(written, shape=shape, dtype=values.dtype)
                    data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
                data[start : start + len(part)] = values

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> CellMatrixWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def writable_frame(frame: pd.DataFrame, reserved: Collection[str] = ()) -> pd.DataFrame:
    """The same annotations in forms that anndata writes and reads back, under the names of `writable_names`.

    Text becomes categorical where values repeat, as anndata itself does; columns that cannot be written (mixed
    objects, dates, categories that are not text) become text.
    """
    names = writable_names(list(map(str, frame.columns)), reserved)
    title = frame.index.name  # anndata stores the index under its name, beside the columns
    is_free = isinstance(title, str) and title not in {*names, *reserved} and _storable(title) == title
    index = pd.Index(frame.index.astype(str), dtype=object).rename(title if is_free else None)
    columns = {name: _writable(frame.iloc[:, position]) for position, name in enumerate(names)}
    return pd.DataFrame({name: column.set_axis(index) for name, column in columns.items()}, index=index)


def writable_names(names: Sequence[str], reserved: Collection[str] = ()) -> list[str]:
    """Distinct names that an h5ad can hold, none of them in `reserved`.

    A name that can stay, stays. In any other, what HDF5 would take for a path (`/`, a lone `.`) or cannot store becomes
    `_`; a reserved name gets `_input`; a name that is taken then gets a number.
    """
    taken = {*reserved, "_index"}
    result: list[str | None] = []
    for name in names:
        stays = name not in taken and _storable(name) == name
        taken |= {name} if stays else set()
        result.append(name if stays else None)
    for position, name in enumerate(names):
        if result[position] is None:
            result[position] = _free(name, taken, reserved)
            taken.add(str(result[position]))
    return [str(name) for name in result]


def _storable(name: str) -> str:
    """The name without what HDF5 would take for a path or cannot store."""
    plain = name.replace("/", "_").replace("\0", "_").encode("utf-8", "replace").decode("utf-8")
    return "_" if plain in ("", ".") else plain


def _free(name: str, taken: Collection[str], reserved: Collection[str]) -> str:
    plain = _storable(name)
    if plain in reserved:
        plain = f"{plain}_input"
    elif plain == "_index":  # anndata's own name of the index
        plain = "_index_"
    unique, number = plain, 1
    while unique in taken:
        number += 1
        unique = f"{plain}_{number}"
    return unique


def _writable(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype):
        kind = column.cat.categories.dtype.kind
        if kind in "iufb":
            return column.cat.remove_unused_categories()
        return column.cat.rename_categories(_distinct(column.cat.categories)).cat.remove_unused_categories()
    if column.dtype.kind in "biuf" and isinstance(column.dtype, np.dtype):
        return column.astype(np.float32) if column.dtype == np.float16 else column
    if isinstance(column.dtype, pd.BooleanDtype) or pd.api.types.is_integer_dtype(column.dtype):
        return column
    if pd.api.types.is_float_dtype(column.dtype):
        return column.astype(np.float64)
    missing = column.isna()
    text = column.astype(object).map(str).where(~missing, None)
    if missing.any() or text.nunique() < len(text):
        return text.astype(pd.CategoricalDtype(sorted(text.dropna().unique())))
    return text


def _distinct(categories: pd.Index) -> list[str]:
    names: list[str] = []
    for category in categories.astype(str):
        name, number = category, 1
        while name in names:
            number += 1
            name = f"{category} ({number})"
        names.append(name)
    return names
