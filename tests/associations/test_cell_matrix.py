import tempfile
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sae_genomics.associations.cell_matrix import CellMatrixWriter, writable_frame, writable_names
from sae_genomics.data.cells.h5ad import CellTable
from sae_genomics.kernels.arrays import ItemRows


def odd_frame(n):
    return pd.DataFrame(
        {
            "text": ["x", "y"] * (n // 2),
            "unique text": [f"u{i}" for i in range(n)],
            "mixed": [1, "a"] * (n // 2),
            "missing text": ["x", None] * (n // 2),
            "all missing": [None] * n,
            "date": pd.date_range("2020-01-01", periods=n),
            "a/b": np.arange(n),
            "category": pd.Categorical(["k"] * n, categories=["k", "unused"]),
            "number category": pd.Categorical([1, 2] * (n // 2)),
            "mixed category": pd.Categorical([1, "1"] * (n // 2)),
            "flag": [True, False] * (n // 2),
            "nullable": pd.array([1, None] * (n // 2), dtype="Int64"),
            "nullable flag": pd.array([True, None] * (n // 2), dtype="boolean"),
            "nullable text": pd.array(["x", None] * (n // 2), dtype="string"),
            "half": np.arange(n, dtype=np.float16),
            "heldout": np.arange(n),
            "_index": np.arange(n),
        },
        index=[f"c{i}" for i in range(n)],
    )


def test_annotations_of_every_kind_are_written_and_come_back(tmp_path):
    n = 6
    frame = odd_frame(n)
    frame = pd.concat([frame, pd.DataFrame({"text": range(n)}, index=frame.index)], axis=1)  # a name twice
    clean = writable_frame(frame)
    data = anndata.AnnData(np.zeros((n, 1), np.float32), obs=clean)
    data.write_h5ad(tmp_path / "odd.h5ad")
    back = anndata.read_h5ad(tmp_path / "odd.h5ad").obs
    assert list(back["text"]) == ["x", "y"] * 3
    assert isinstance(back["text"].dtype, pd.CategoricalDtype)
    assert back["text_2"].tolist() == list(range(n))
    assert back["a_b"].tolist() == list(range(n))
    assert back["mixed"].tolist() == ["1", "a"] * 3
    assert back["missing text"].isna().tolist() == [False, True] * 3
    assert back["category"].cat.categories.tolist() == ["k"]
    assert back["mixed category"].cat.categories.tolist() == ["1", "1 (2)"]
    assert back["date"].iloc[0].startswith("2020-01-01")
    assert back["_index_"].tolist() == list(range(n))
    assert back["nullable"].isna().sum() == 3


@pytest.fixture
def table_file(tmp_path):
    data = anndata.AnnData(np.ones((5, 3), np.float32), obs=pd.DataFrame({"heldout": range(5)}, index=list("abcde")))
    data.obsm["X_umap"] = np.arange(10.0).reshape(5, 2)
    data.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def test_file_is_read_by_anndata_with_the_input_beside_it(table_file, tmp_path):
    rows = np.array([3, 1])  # not ascending
    features = pd.DataFrame({"feature": np.arange(4), "top_gene": ["A", None, "B", None]})
    path = tmp_path / "features.h5ad"
    with CellMatrixWriter(path, 2, 4) as writer, CellTable(table_file) as table:
        writer.append(ItemRows(np.array([0, 2]), np.array([0, 3], np.int32), *np.array([[1, 2], [0.5, 1]], np.float32)))
        empty = np.empty(0, np.float32)
        writer.append(ItemRows(np.array([0, 0]), np.empty(0, np.int32), empty, empty))
        writer.finish(table, rows, np.array([True, False]), features, {"layer": 3})
    data = anndata.read_h5ad(path)
    np.testing.assert_array_equal(data.X.toarray(), [[1, 0, 0, 2], [0, 0, 0, 0]])
    np.testing.assert_array_equal(data.layers["mean"].toarray(), [[0.5, 0, 0, 1], [0, 0, 0, 0]])
    assert data.obs_names.tolist() == ["d", "b"]
    assert data.obs["heldout"].tolist() == [True, False]
    assert data.obs["heldout_input"].tolist() == [3, 1]
    np.testing.assert_array_equal(data.obsm["X_umap"], [[6, 7], [2, 3]])
    assert data.var_names.tolist() == ["F0", "F1", "F2", "F3"]
    assert data.uns["sae_genomics"]["layer"] == 3
    anndata.read_h5ad(path, backed="r").file.close()


NAMES = ["heldout", "heldout_input", "heldout_input_2", "_index", "_index_", "cell_type", "a/b", "a_b", "a_b_2", "/", "_", ".", "", "a\0b", "index"]  # fmt: skip
names = st.lists(st.one_of(st.sampled_from(NAMES), st.text(max_size=4)), max_size=7)


@settings(max_examples=60, deadline=None)
@given(obs_names=names, obsm_names=names, title=st.sampled_from([None, *NAMES]))
@example(obs_names=["heldout", "heldout_input"], obsm_names=[], title=None)
@example(obs_names=["heldout", "heldout_input_2", "heldout_input"], obsm_names=["a_b", "a/b"], title="heldout")
@example(obs_names=[], obsm_names=["."], title="heldout_input")
def test_no_name_of_the_input_collides_with_ours(obs_names, obsm_names, title):
    n = 4
    values = np.arange(len(obs_names) * n).reshape(len(obs_names), n)
    obs = pd.DataFrame(values.T, columns=obs_names, index=pd.Index(list("abcd"), name=title))
    keys = list(dict.fromkeys(obsm_names))
    arrays = {name: np.full((n, 2), number + 0.5) for number, name in enumerate(keys)}
    table = SimpleNamespace(obs=obs, obsm_names=keys, obsm=lambda name, rows: arrays[name][rows])
    heldout = np.array([True, False, False, True])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.h5ad"
        with CellMatrixWriter(path, n, 2) as writer:
            empty = np.empty(0, np.float32)
            writer.append(ItemRows(np.zeros(n + 1, np.int64), np.empty(0, np.int32), empty, empty))
            writer.finish(table, np.arange(n), heldout, pd.DataFrame({"feature": range(2)}), {})
        data = anndata.read_h5ad(path)
    assert data.obs_names.tolist() == list("abcd")
    assert data.obs["heldout"].tolist() == heldout.tolist()
    theirs = data.obs.drop(columns="heldout")
    assert theirs.to_numpy().T.tolist() == values.tolist()
    for position, name in enumerate(obs_names):
        if name in NAMES[1:6] and name != "_index" and obs_names.count(name) == 1:
            assert theirs[name].tolist() == values[position].tolist(), "a name that can stay, stays"
    written = writable_names(keys)
    assert sorted(data.obsm) == sorted(written)
    for key, name in zip(keys, written, strict=True):
        np.testing.assert_array_equal(data.obsm[name], arrays[key])


def test_names_that_must_change_make_room_for_those_that_need_not():
    names = ["heldout", "x/y", "heldout_input", "x_y", "x_y"]
    assert writable_names(names, ("heldout",)) == ["heldout_input_2", "x_y_2", "heldout_input", "x_y", "x_y_3"]


def test_too_few_rows_are_refused(table_file, tmp_path):
    writer, features = CellMatrixWriter(tmp_path / "f.h5ad", 2, 4), pd.DataFrame({"feature": range(4)})
    with writer, CellTable(table_file) as table, pytest.raises(RuntimeError, match="0 rows of 2"):
        writer.finish(table, np.array([0, 1]), np.zeros(2, bool), features, {})


@pytest.mark.parametrize(("max_values", "dtype"), [(2**31 - 1, np.int32), (None, np.int64)])
def test_indices_are_wide_when_values_could_be_many(table_file, tmp_path, max_values, dtype):
    d_sae, path = 2**31 + 5, tmp_path / "wide.h5ad"
    with CellMatrixWriter(path, 1, d_sae, max_values) as writer:
        writer.append(ItemRows(np.array([0, 1]), np.array([7], np.int32), *np.ones((2, 1), np.float32)))
        groups = writer._file["X"], writer._file["layers/mean"]
        assert all(group["indices"].dtype == dtype for group in groups)
