"""A large file's hash: the same for a copy, another for a changed file, and quick."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sae_genomics import hashes, hdf5_hash
from sae_genomics.hashes import hash_file
from sae_genomics.hdf5_hash import hash_hdf5

N_CELLS, N_GENES = 3000, 200
Change = Callable[[h5py.File], None]


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a megabyte is a large one, and its raw blocks and small datasets are few bytes."""
    monkeypatch.setattr(hashes, "WHOLE_FILE_LIMIT", 1 << 16)
    monkeypatch.setattr(hashes, "_BLOCK", 16)
    monkeypatch.setattr(hdf5_hash, "_WHOLE_BYTES", 1 << 15)


def write_cells(path: Path, form: str) -> Path:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (N_CELLS, N_GENES)).astype(np.float32)
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical(rng.choice(["B", "T"], N_CELLS)), "depth": counts.sum(1)},
        index=[f"cell{number:05d}" for number in range(N_CELLS)],
    )
    var = pd.DataFrame(
        {"symbol": [f"SYM{gene}" for gene in range(N_GENES)]}, index=[f"G{g:04d}" for g in range(N_GENES)]
    )
    data = ad.AnnData(counts if form == "dense" else sparse.csr_matrix(counts), obs=obs, var=var)
    data.uns["title"] = "cells"
    data.write_h5ad(path, compression="gzip" if form == "packed" else None)
    return path


@pytest.fixture(params=["packed", "plain", "dense"])
def cells(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_cells(tmp_path / "cells.h5ad", request.param)


def rename_cell(file: h5py.File) -> None:
    file["obs/_index"][1234] = "cellXXXXX"  # as long as it was: HDF5 puts it where the old name stood


def rename_gene(file: h5py.File) -> None:
    file["var/_index"][77] = "GXXXX"


def change_symbol(file: h5py.File) -> None:
    file["var/symbol"][77] = "SYMXX"


def change_count(file: h5py.File) -> None:
    values = file["X/data"] if "X/data" in file else file["X"]
    values[(len(values) - 1, *([0] * (values.ndim - 1)))] += 1  # the last chunk is a sample


def change_category(file: h5py.File) -> None:
    file["obs/cell_type/categories"][0] = "C"


def change_attribute(file: h5py.File) -> None:
    file["obs"].attrs["_index"] = "_Index"
    file["obs"].attrs["_index"] = "_index"
    file["obs/cell_type"].attrs["ordered"] = True


def change_scalar(file: h5py.File) -> None:
    del file["uns/title"]
    file["uns/title"] = "CELLS"


@pytest.mark.parametrize(
    "change",
    [rename_cell, rename_gene, change_symbol, change_count, change_category, change_attribute, change_scalar],
)
def test_a_change_is_noticed(cells: Path, change: Change) -> None:
    before, values = hash_file(cells), hash_hdf5(cells)
    assert values
    times = os.stat(cells)
    with h5py.File(cells, "r+") as file:
        change(file)
    os.utime(cells, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hash_hdf5(cells) != values
    assert hash_file(cells) != before


def test_another_shape_is_noticed(cells: Path, tmp_path: Path) -> None:
    data = ad.read_h5ad(cells)
    data[:-1].copy().write_h5ad(tmp_path / "fewer_cells.h5ad")
    data[:, :-1].copy().write_h5ad(tmp_path / "fewer_genes.h5ad")
    found = {hash_file(path) for path in tmp_path.glob("*.h5ad")}
    assert len(found) == 3


def test_touching_copying_and_moving_change_nothing(cells: Path, tmp_path: Path) -> None:
    before = hash_file(cells)
    os.utime(cells, (1, 1))
    assert hash_file(cells) == before
    copy = tmp_path / "elsewhere" / "other_name.h5ad"
    copy.parent.mkdir()
    shutil.copyfile(cells, copy)
    assert hash_file(copy) == before
    assert hash_file(cells.rename(tmp_path / "moved.h5ad")) == before


def test_other_files_count_by_size_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_BLOCK", 1 << 10)
    path = tmp_path / "weights.bin"
    content = bytearray(np.random.default_rng(0).bytes(1 << 20))
    path.write_bytes(content)
    before = hash_file(path)
    os.utime(path, (1, 1))
    assert hash_file(path) == before
    content[-1] ^= 1
    path.write_bytes(content)
    assert hash_file(path) != before
    small = tmp_path / "small"
    small.write_bytes(b"x" * 100)
    assert hash_file(small) != hash_file(path)


def test_files_of_2018_and_damaged_ones_are_hashed_too(tmp_path: Path) -> None:
    old = tmp_path / "old.h5ad"
    table = np.zeros(5000, dtype=[("index", "S8"), ("depth", "<f4")])
    table["index"] = [b"c%05d" % number for number in range(len(table))]
    with h5py.File(old, "w") as file:
        file["obs"] = table
        file["var"] = table[:10]
        file.create_dataset("X", data=np.ones((5000, 10), np.float32))
        file["link"] = h5py.SoftLink("/X")
        file["obs"].attrs["categories"] = file["var"].ref
    before = hash_hdf5(old)
    with h5py.File(old, "r+") as file:
        row = file["obs"][2500]
        row["index"] = b"changed"
        file["obs"][2500] = row
    after = hash_hdf5(old)
    assert before != after
    with h5py.File(old, "r+") as file:
        del file["link"]
        file["link"] = h5py.SoftLink("/obs")
    assert hash_hdf5(old) != after
    data = old.read_bytes()
    old.write_bytes(data[: len(data) // 2])
    assert hash_hdf5(old) == b""
    assert len(hash_file(old)) == 16


def test_a_hundred_gigabytes_take_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real limits
    path = tmp_path / "atlas.h5ad"
    n_values, n_cells = 12_500_000_000, 300_000
    with h5py.File(path, "w") as file:
        for group, names in (("obs", n_cells), ("var", 1000)):
            file.create_group(group).attrs["_index"] = "_index"
            file[f"{group}/_index"] = [f"{group}{number:07d}" for number in range(names)]
        for name in ("data", "indices"):  # nothing is written: the file is as long as it says, and takes no room
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            space = h5py.h5s.create_simple((n_values,))
            links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
            links.set_create_intermediate_group(True)
            h5py.h5d.create(file.id, f"X/{name}".encode(), h5py.h5t.NATIVE_INT32, space, creation, links)
    if path.stat().st_blocks * 512 > 1 << 30:
        pytest.skip("this disk writes out what was left empty")
    assert path.stat().st_size > 100e9
    started = time.perf_counter()
    before = hash_file(path)
    assert time.perf_counter() - started < 20
    with h5py.File(path, "r+") as file:
        file["obs/_index"][1234] = "changed"
    assert hash_file(path) != before
