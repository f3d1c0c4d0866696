import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from sae_genomics.data.cells.h5ad import CellTable, count_cells, resolve
from sae_genomics.errors import UserError
from tests.data.conftest import STORAGES, model_genes, random_counts, write_cells

OBS = {
    "cell_type": pd.Categorical(["a", "b", None, "a"] * 5),
    "plain": ["x", "y", "z", "x"] * 5,
    "cluster": [1, 2, 3, 1] * 5,
    "score": [0.5, np.nan, 1.0, 2.0] * 5,
    "whole": [1.0, np.nan, 3.0, 2.0] * 5,
}


@pytest.fixture
def file(tmp_path):
    return write_cells(
        tmp_path / "a.h5ad",
        random_counts(20, 12),
        obs=OBS,
        obsm={"X_umap": np.arange(40.0).reshape(20, 2)},
        raw=random_counts(20, 12, 1),
    )


def test_cells_genes_and_embeddings(file):
    assert count_cells(file) == 20
    with CellTable(file) as table:
        assert table.n_cells == 20
        assert table.matrices == ["raw", "X"]
        assert table.obsm_names == ["X_umap"]
        rows = np.array([2, 3, 11])
        assert list(table.cell_ids(rows)) == ["cell2", "cell3", "cell11"]
        np.testing.assert_array_equal(table.obsm("X_umap", rows), [[4, 5], [6, 7], [22, 23]])
        assert list(table.obs.index[:2]) == ["cell0", "cell1"]
        assert list(table.obs_columns) == list(OBS)
        assert list(table.var.index) == model_genes()[:12]
        cell_type = table.column("cell_type", "data.cell_type_key")
        assert isinstance(cell_type, pd.Categorical)
        assert list(cell_type.isna()[:4]) == [False, False, True, False]
        assert list(table.column("plain", "k")[:2]) == ["x", "y"]
        assert list(table.column("cluster", "k")[:2]) == ["1", "2"]
        assert list(table.column("score", "k")[:3]) == ["0.5", None, "1.0"]
        assert list(table.column("whole", "k")[:3]) == ["1", None, "3"]
        with pytest.raises(
            UserError,
            match=r"data.cell_type_key: .* no obs column 'celltype'; did you mean cell_type\? there are: cell_type, plain",
        ):
            table.column("celltype", "data.cell_type_key")
        with pytest.raises(UserError, match="no layers:counts; there is raw, X"):
            table.matrix("layers:counts")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_every_storage_opens(tmp_path, storage, compression):
    counts = random_counts(20, 12)
    write_cells(tmp_path / "a.h5ad", counts, storage=storage, compression=compression, layers={"counts": counts + 1})
    with CellTable(tmp_path / "a.h5ad") as table:
        assert table.matrix("X").layout == storage
        assert table.matrix("layers:counts").shape == (20, 12)
        if storage != "csc":
            np.testing.assert_array_equal(table.matrix("X").take(np.arange(20)).toarray(), counts)


def test_the_format_of_anndata_07(tmp_path):
    """Categories in a group of their own, referred to by the column."""
    path = write_cells(tmp_path / "a.h5ad", random_counts(6, 5))
    with h5py.File(path, "r+") as file:
        del file["obs"]
        obs = file.create_group("obs")
        obs.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.1.0", "_index": "names"})
        obs.attrs["column-order"] = np.array(["kind"], dtype=object)
        obs["names"] = np.array([b"c0", b"c1", b"c2", b"c3", b"c4", b"c5"])
        obs["__categories/kind"] = np.array(["T", "B"], dtype=object)
        obs["__categories/kind"].attrs.update(
            {"encoding-type": "string-array", "encoding-version": "0.2.0", "ordered": False}
        )
        obs["kind"] = np.array([0, 1, -1, 0, 1, 1], dtype=np.int8)
        obs["kind"].attrs["categories"] = obs["__categories/kind"].ref
    with CellTable(path) as table:
        assert table.obs_columns == ["kind"]
        column = table.column("kind", "k")
        assert list(column[:2]) == ["T", "B"]
        assert column.isna().sum() == 1
        assert list(table.cell_ids(np.array([1, 4]))) == ["c1", "c4"]


def test_the_file_in_scanpys_wheel_agrees_with_anndata():
    path = resolve("builtin:pbmc68k_reduced")
    expected = ad.read_h5ad(path)
    with CellTable(path) as table:
        assert table.matrices == ["raw", "X"]
        pd.testing.assert_series_equal(
            pd.Series(table.column("bulk_labels", "k")).astype(str),
            expected.obs["bulk_labels"].astype(str).reset_index(drop=True),
            check_names=False,
        )
        assert list(table.obs.columns) == list(expected.obs.columns)
        assert list(table.obs.index) == list(expected.obs_names)
        assert list(table.genes("raw").index) == list(expected.raw.var_names)
        assert set(table.var.columns) == set(expected.var.columns)
        every = np.arange(700)
        np.testing.assert_array_equal(table.matrix("raw").take(every).toarray(), expected.raw.X.toarray())
        np.testing.assert_array_equal(table.matrix("X").take(every).toarray(), expected.X)
        np.testing.assert_array_equal(table.obsm("X_umap", np.array([5, 9])), expected.obsm["X_umap"][[5, 9]])


def test_the_builtin_file_needs_no_import_of_scanpy():
    code = (
        "import sys; from sae_genomics.data.cells.h5ad import resolve, count_cells\n"
        "assert count_cells(resolve('builtin:pbmc68k_reduced')) == 700; assert 'scanpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_raw_genes_take_annotations_from_var(tmp_path):
    counts = random_counts(5, 4)
    path = write_cells(tmp_path / "a.h5ad", counts, raw=counts, var={"ids": list("wxyz")})
    with h5py.File(path, "r+") as file:
        del file["raw/var/ids"]
        file["raw/var"].attrs["column-order"] = np.array([], dtype="S1")
    with CellTable(path) as table:
        assert list(table.genes("raw")["ids"]) == list("wxyz")


def test_without_x(tmp_path):
    with CellTable(write_cells(tmp_path / "a.h5ad", None, layers={"spliced": random_counts(5, 4)})) as table:
        assert table.matrices == ["layers:spliced"]
        assert table.n_cells == 5


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"not hdf5 at all", "is not an HDF5 file"),
        (b"\x1f\x8b\x08\x00", "gunzip bad.h5ad"),
        ("truncated", "is truncated"),
        ("no obs", "not an .h5ad: it has no obs"),
        ("10x", "10x Genomics"),
        ("no cells", "holds no cells"),
        ("no genes", "holds no genes"),
        ("folder", "is a folder"),
        ("absent", "no such file"),
    ],
)
def test_files_that_are_none(tmp_path, content, says):
    path = tmp_path / "bad.h5ad"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "truncated":
        write_cells(path, random_counts(100, 50))
        path.write_bytes(path.read_bytes()[:-5000])
    elif content in ("no obs", "10x"):
        with h5py.File(path, "w") as file:
            file.create_group("matrix" if content == "10x" else "X")
    elif content == "no cells":
        write_cells(path, np.zeros((0, 5), dtype=np.float32))
    elif content == "no genes":
        write_cells(path, np.zeros((5, 0), dtype=np.float32))
    elif content == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=says) as error:
        count_cells(resolve(str(path)))
    assert "bad.h5ad" in str(error.value)


def test_paths():
    with pytest.raises(UserError, match="no data set builtin:else; there is builtin:pbmc68k_reduced"):
        resolve("builtin:else")


def test_sizes_that_disagree(tmp_path):
    path = write_cells(tmp_path / "a.h5ad", random_counts(6, 5))
    with h5py.File(path, "r+") as file:
        file["X"].attrs["shape"] = (6, 4)
    with CellTable(path) as table, pytest.raises(UserError, match="X is 6 x 4, but there are 6 cells and 5 genes"):
        table.matrix("X")
