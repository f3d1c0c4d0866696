"""An .h5ad file, opened without loading it: where it is, its cells and genes, its matrices."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.cells.matrix import Rows, StoredMatrix, open_matrix, read_rows
from sae_genomics.errors import UserError


@dataclass(frozen=True)
class Builtin:
    """Cells that come with the package, or with scanpy."""

    file: str
    """its name"""
    folder: Path | None = None
    """where it is; None: among the data sets of scanpy's wheel"""
    note: str = ""
    """what every reader of a run over these cells is told"""


# data.path -> the cells
BUILTIN = {
    "builtin:pbmc68k_reduced": Builtin("10x_pbmc68k_reduced.h5ad"),
    "builtin:planted": Builtin(
        "planted.h5ad",
        Path(__file__).parents[2] / "assets" / "planted",
        "These cells are synthetic: a generator made them, with programmes of genes planted in them.",
    ),
}
_CHUNK_CACHE = 1 << 25  # holds a chunk of every array that is read side by side, so that none is unpacked twice


def resolve(path: str) -> Path:
    """The absolute path of `data.path`. Raises UserError when no such file is there.

    `builtin:pbmc68k_reduced` is the file that scanpy's wheel holds; scanpy is not imported.
    """
    if path.startswith("builtin:"):
        if path not in BUILTIN:
            raise UserError(f"data.path: no data set {path}; there is {', '.join(BUILTIN)}")
        known = BUILTIN[path]
        if known.folder is not None:
            return known.folder / known.file
        spec = importlib.util.find_spec("scanpy")
        folder = Path(spec.origin).parent if spec and spec.origin else None
        file = folder / "datasets" / known.file if folder else None
        if file is None or not file.is_file():
            raise UserError(f"data.path: {path} comes with scanpy, which is not installed; pip install scanpy")
        return file
    file = Path(path).expanduser().absolute()
    if file.is_dir():
        raise UserError(f"data.path: {file} is a folder; give one .h5ad file")
    if not file.exists():
        raise UserError(f"data.path: no such file: {file}; set data.path to an .h5ad file or builtin:pbmc68k_reduced")
    return file


def count_cells(path: Path) -> int:
    """Number of cells, from the file's header alone.

    Raises UserError for a file that is not HDF5, is cut short, is not an h5ad, or holds no cells.
    """
    with _open(path) as file:
        return _n_cells(file, path)


class CellTable:
    """An open .h5ad file. Use it in a `with` block.

    n_cells: its cells. Matrices are named as in `data.counts`: `X`, `raw`, `layers:NAME`.

    Raises UserError as `count_cells` does.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            self.n_cells = _n_cells(self._file, self.path)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> CellTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    # --- cells ---

    @cached_property
    def obs(self) -> pd.DataFrame:
        """All annotations of all cells, index = cell ids. Grows with the number of cells; `column` does not."""
        return _frame(self._file, "obs")

    @property
    def obs_columns(self) -> list[str]:
        """Names of the annotations."""
        return _columns(self._file["obs"])

    def cell_ids(self, rows: Rows) -> npt.NDArray[np.object_]:
        """obs index of the rows (ascending, distinct): str [rows]."""
        obs = self._file["obs"]
        if isinstance(obs, h5py.Dataset):
            names = read_rows(obs, rows)[_index_name(obs)]
        elif isinstance(obs[_index_name(obs)], h5py.Dataset):
            names = read_rows(obs[_index_name(obs)], rows)
        else:
            names = np.asarray(_read_elem(obs[_index_name(obs)]))[rows]
        return _text(names)

    def column(self, key: str, setting: str) -> npt.NDArray[np.object_] | pd.Categorical:
        """One annotation of all cells as text, None where it is missing; categorical where the file has it so.

        setting: the config key that asked for it, named in the UserError when there is no such column.
        """
        self.check_column(key, setting)
        values = _column(self._file, "obs", key)
        if isinstance(values, pd.Categorical):
            return values.rename_categories([str(category) for category in values.categories])
        return _labels(values)

    def check_column(self, key: str, setting: str) -> None:
        """Raise UserError, naming the setting and the columns there are, when obs has no such column."""
        if key not in self.obs_columns:
            columns = ", ".join(self.obs_columns[:40]) or "none"
            near = difflib.get_close_matches(key, self.obs_columns, n=3)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise UserError(f"{setting}: {self.path} has no obs column {key!r}; {meant}there are: {columns}")

    @cached_property
    def obsm_names(self) -> list[str]:
        """Names of the two-dimensional arrays of obsm (embeddings)."""
        obsm = self._file.get("obsm")
        if isinstance(obsm, h5py.Dataset):
            return [name for name in obsm.dtype.names or () if len(obsm.dtype[name].shape) == 1]
        if obsm is None:
            return []
        return [name for name, item in obsm.items() if isinstance(item, h5py.Dataset) and len(item.shape) == 2]

    def obsm(self, name: str, rows: Rows) -> npt.NDArray[Any]:
        """Rows (ascending, distinct) of an embedding: [rows, dimensions]."""
        obsm = self._file["obsm"]
        return read_rows(obsm, rows)[name] if isinstance(obsm, h5py.Dataset) else read_rows(obsm[name], rows)

    # --- genes ---

    @cached_property
    def var(self) -> pd.DataFrame:
        """Annotations of the genes of X and the layers."""
        return _frame(self._file, "var")

    def genes(self, where: str) -> pd.DataFrame:
        """Annotations of a matrix's genes. Those of `raw` are completed from var, where the names agree."""
        if where != "raw":
            return self.var
        raw = _frame(self._file, "raw.var" if "raw.var" in self._file else "raw/var")
        if self.var.index.is_unique and raw.index.isin(self.var.index).all():
            missing = [column for column in self.var.columns if column not in raw.columns]
            raw = raw.join(self.var[missing])
        return raw

    # --- matrices ---

    @cached_property
    def matrices(self) -> list[str]:
        """Names of all matrices of cells x genes, layers first."""
        layers = self._file.get("layers")
        names = [f"layers:{name}" for name in layers] if isinstance(layers, h5py.Group) else []
        names += ["raw"] if "raw.X" in self._file or "raw/X" in self._file else []
        return names + (["X"] if _present(self._file, "X") else [])

    def matrix(self, where: str) -> StoredMatrix:
        """The matrix of that name. Raises UserError naming those there are."""
        if where not in self.matrices:
            raise UserError(
                f"data.counts: {self.path} has no {where}; there is {', '.join(self.matrices) or 'no matrix at all'}"
            )
        if where == "raw":
            element = self._file["raw.X" if "raw.X" in self._file else "raw/X"]
        elif where == "X":
            element = self._file["X"]
        else:
            element = self._file["layers"][where.removeprefix("layers:")]
        matrix = open_matrix(where, element)
        expected = (self.n_cells, len(self.genes(where)))
        if matrix.shape != expected:
            raise UserError(
                f"{self.path}: {where} is {matrix.shape[0]:,} x {matrix.shape[1]:,}, but there are {expected[0]:,} cells "
                f"and {expected[1]:,} genes; write the file again with anndata"
            )
        return matrix


def _open(path: Path) -> h5py.File:
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  registers further compressions
    if path.is_dir():
        raise UserError(f"data.path: {path} is a folder; give one .h5ad file")
    try:
        if os.path.getsize(path) == 0:
            raise UserError(f"{path} is empty; copy it again")
        if not h5py.is_hdf5(path):
            with open(path, "rb") as plain:  # complains when it may not be read
                if plain.read(2) == b"\x1f\x8b":
                    raise UserError(f"{path} is packed with gzip; unpack it first: gunzip {path.name}")
            raise UserError(f"{path} is not an HDF5 file; data.path takes an .h5ad file, as anndata writes it")
        return h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE, locking=False)
    except FileNotFoundError:
        raise UserError(f"data.path: no such file: {path}") from None
    except PermissionError:
        raise UserError(f"{path} may not be read by you; ask its owner, or copy it") from None
    except OSError as error:
        cause = "is truncated" if "truncated" in str(error) else f"cannot be opened ({' '.join(str(error).split())})"
        raise UserError(f"{path} {cause}; copy it again, or check that its writing had ended") from None


def _n_cells(file: h5py.File, path: Path) -> int:
    if "matrix" in file and "obs" not in file:
        raise UserError(
            f"{path} looks like a 10x Genomics .h5, not an .h5ad; convert it with scanpy: sc.read_10x_h5(...).write_h5ad(...)"
        )
    missing = [name for name in ("obs", "var") if name not in file]
    if missing:
        raise UserError(f"{path} is HDF5 but not an .h5ad: it has no {missing[0]}; write it with anndata")
    sizes = []
    for name in ("obs", "var"):
        table = file[name]
        if isinstance(table, h5py.Group):
            index = _index_name(table)
            if index not in table:
                raise UserError(f"{path}: {name} has no index; write the file again with anndata")
            table = table[index]
            table = table["codes"] if isinstance(table, h5py.Group) and "codes" in table else table
            table = table["values"] if isinstance(table, h5py.Group) else table
        sizes.append(int(table.shape[0]))
    if sizes[0] == 0:
        raise UserError(f"{path} holds no cells; set data.path to a file with some")
    if sizes[1] == 0 and "raw" not in file and "raw.var" not in file:
        raise UserError(f"{path} holds no genes; set data.path to a file with some")
    return sizes[0]


def _present(file: h5py.File, name: str) -> bool:
    return name in file and (isinstance(file[name], h5py.Group) or file[name].shape is not None)


def _index_name(table: h5py.Group | h5py.Dataset) -> str:
    if isinstance(table, h5py.Dataset):
        names = list(table.dtype.names or ["index"])
        return "index" if "index" in names else names[0]
    name = table.attrs.get("_index", "_index" if "_index" in table else "index")
    return name.decode() if isinstance(name, bytes) else str(name)


def _columns(table: h5py.Group | h5py.Dataset) -> list[str]:
    index = _index_name(table)
    if isinstance(table, h5py.Dataset):
        return [name for name in table.dtype.names or () if name != index]
    order = [name.decode() if isinstance(name, bytes) else str(name) for name in table.attrs.get("column-order", [])]
    return order or [name for name in table if name not in (index, "__categories")]


def _read_elem(element: h5py.Group | h5py.Dataset) -> Any:
    """anndata's reader, imported where it is used: commands that only count cells start half a second sooner."""
    from anndata.io import read_elem

    return read_elem(element)


def _frame(file: h5py.File, name: str) -> pd.DataFrame:
    table = file[name]
    if isinstance(table, h5py.Group):
        frame = _read_elem(table)
        frame.index = pd.Index(_text(frame.index.to_numpy()), name=frame.index.name, dtype=object)
        return frame
    index = pd.Index(_text(table[_index_name(table)]), dtype=object)
    return pd.DataFrame({key: _column(file, name, key) for key in _columns(table)}, index=index)


def _column(file: h5py.File, name: str, key: str) -> Any:
    """One column in memory, categories resolved for all three generations of the format."""
    table = file[name]
    if isinstance(table, h5py.Dataset):
        values = table[key]
        categories = file.get(f"uns/{key}_categories") if name == "obs" else None
        if categories is not None and values.dtype.kind in "iu":
            return pd.Categorical.from_codes(values, _text(categories[:]))
        return _text(values) if values.dtype.kind in "SO" else values
    element = table[key]
    if isinstance(element, h5py.Dataset) and "categories" in element.attrs:
        return pd.Categorical.from_codes(element[:], _read_elem(file[element.attrs["categories"]]))
    return _read_elem(element)


def _text(values: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    array = np.asarray(values)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace").astype(object)
    items = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.tolist()]
    return np.array(items, dtype=object)


def _labels(values: Any) -> npt.NDArray[np.object_]:
    """Text, with None for what is missing; 1.0 reads 1 when a column of numbers holds whole ones only."""
    series = pd.Series(values)
    if series.dtype.kind == "f" and (series.dropna() % 1 == 0).all():
        series = series.astype("Int64")
    missing = series.isna().to_numpy()
    text = _text(series.astype(object).where(~missing, "").to_numpy())
    text[missing] = None
    return text
