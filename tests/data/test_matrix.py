import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sae_genomics.data.cells.by_rows import copy_by_rows
from sae_genomics.data.cells.matrix import open_matrix, read_rows
from sae_genomics.data.cells.row_copy import open_copy
from sae_genomics.errors import UserError
from tests.data.conftest import random_counts


def write_matrix(file, values, storage, chunks=7):
    """In AnnData's layout, in small chunks so that reads cross them."""
    if storage == "dense":
        return file.create_dataset("X", data=values, chunks=(min(chunks, len(values)), min(5, values.shape[1])))
    matrix = sparse.csr_matrix(values) if storage == "csr" else sparse.csc_matrix(values)
    group = file.create_group("X")
    group.attrs["encoding-type"] = f"{storage}_matrix"
    group.attrs["shape"] = values.shape
    for part in ("data", "indices", "indptr"):
        array = getattr(matrix, part)
        options = {"chunks": (min(chunks, len(array)),), "compression": "gzip"} if len(array) else {}
        group.create_dataset(part, data=array, **options)
    return group


@settings(max_examples=60, deadline=None)
@given(
    storage=st.sampled_from(["csr", "dense"]),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 12)),
    chosen=st.sets(st.integers(0, 39)),
    max_values=st.integers(1, 60),
    density=st.floats(0, 1.5),
    seed=st.integers(0, 99),
)
def test_blocks_give_the_rows_asked_for(tmp_path_factory, storage, shape, chosen, max_values, density, seed):
    values = random_counts(*shape, seed=seed, mean=density)
    rows = np.array(sorted(row for row in chosen if row < shape[0]), dtype=np.int64)
    with h5py.File(tmp_path_factory.mktemp("m") / "m.h5", "w") as file:
        matrix = open_matrix("X", write_matrix(file, values, storage))
        seen = np.zeros(len(rows), dtype=int)
        for cells, block in matrix.blocks(rows, max_values):
            np.testing.assert_array_equal(block.toarray(), values[rows[cells]])
            assert cells.stop - cells.start == 1 or max(block.nnz, 0) <= max(max_values, shape[1])
            seen[cells] += 1
        assert (seen == 1).all()
        np.testing.assert_array_equal(matrix.take(rows).toarray(), values[rows])


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 12)),
    chosen=st.sets(st.integers(0, 39), min_size=1),
    band=st.integers(1, 80),
    density=st.floats(0, 1.5),
)
def test_columns_are_copied_to_rows(tmp_path_factory, shape, chosen, band, density):
    values = random_counts(*shape, mean=density)
    rows = np.array(sorted(row for row in chosen if row < shape[0]), dtype=np.int64)
    folder = tmp_path_factory.mktemp("c")
    with h5py.File(folder / "m.h5", "w") as file:
        matrix = open_matrix("X", write_matrix(file, values, "csc"))
        copy_by_rows(matrix, rows, folder / "copy.h5", "key", band_values=band)
    file = open_copy(folder / "copy.h5", "key")
    assert file is not None
    taken = open_matrix("X", file["X"]).take(np.arange(len(rows)))
    assert taken.has_sorted_indices
    np.testing.assert_array_equal(taken.toarray(), values[rows])
    file.close()
    assert open_copy(folder / "copy.h5", "another key") is None
    assert sorted(path.name for path in folder.iterdir()) == ["copy.h5", "copy.json", "m.h5"]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 200), chosen=st.sets(st.integers(0, 199)), max_values=st.integers(1, 30), width=st.integers(0, 3)
)
def test_read_rows(tmp_path_factory, n, chosen, max_values, width):
    array = np.arange(n * max(width, 1)).reshape((n, width) if width else n)
    rows = np.array(sorted(row for row in chosen if row < n), dtype=np.int64)
    with h5py.File(tmp_path_factory.mktemp("r") / "r.h5", "w") as file:
        data = file.create_dataset("a", data=array, chunks=True)
        np.testing.assert_array_equal(read_rows(data, rows, max_values), array[rows])


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">i4", "uint8", "bool", "float64", "int64"])
@pytest.mark.parametrize("storage", ["csr", "dense", "csc"])
def test_every_type_of_number(tmp_path, dtype, storage):
    values = random_counts(20, 10)
    if dtype == "bool":
        values = (values > 0).astype(np.float32)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = write_matrix(file, values, storage)
        if storage == "dense":
            group = file.create_dataset("Y", data=values.astype(dtype))
        else:
            data = group["data"][:]
            del group["data"]
            group["data"] = data.astype(dtype)
        matrix = open_matrix("X", group)
        if storage == "csc":
            copy_by_rows(matrix, np.arange(20), tmp_path / "copy.h5", "key")
            matrix = open_matrix("X", open_copy(tmp_path / "copy.h5", "key")["X"])
        np.testing.assert_array_equal(matrix.take(np.arange(20)).toarray().astype(np.float32), values)


def test_far_rows_are_read_apart(tmp_path):
    values = np.zeros((70_000, 3), dtype=np.float32)
    values[::2] = 1
    rows = np.array([0, 1, 30_000, 69_999])
    with h5py.File(tmp_path / "m.h5", "w") as file:
        matrix = open_matrix("X", write_matrix(file, values, "csr", chunks=64))
        np.testing.assert_array_equal(matrix.take(rows).toarray(), values[rows])


@pytest.mark.parametrize("fault", ["indices", "indptr", "lengths", "kind", "text", "one dimension"])
def test_damage_is_named(tmp_path, fault):
    values = random_counts(20, 10)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = write_matrix(file, values, "csr")
        if fault == "indices":
            group["indices"][3] = 10
        elif fault == "indptr":
            group["indptr"][5] = 10**6
        elif fault == "lengths":
            del group["indptr"]
            group["indptr"] = np.arange(4)
        elif fault == "kind":
            group.attrs["encoding-type"] = "awkward-array"
        elif fault == "text":
            group = file.create_dataset("Y", data=np.array([[b"a"]]))
        else:
            group = file.create_dataset("Y", data=np.zeros(4))
        with pytest.raises(UserError, match=r"m\.h5"):
            open_matrix("X", group).take(np.arange(20))


def test_a_chunk_that_cannot_be_read(tmp_path):
    values = random_counts(200, 50)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = write_matrix(file, values, "csr", chunks=500)
        offset, size = (getattr(group["data"].id.get_chunk_info(2), part) for part in ("byte_offset", "size"))
    with open(tmp_path / "m.h5", "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    with h5py.File(tmp_path / "m.h5") as file, pytest.raises(UserError, match=r"m\.h5: X cannot be read"):
        open_matrix("X", file["X"]).take(np.arange(200))
