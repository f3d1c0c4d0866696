import json
import os
import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sae_genomics import content
from sae_genomics.artifacts import CELLS, GENES
from sae_genomics.data.cells import row_copy
from sae_genomics.data.cells.by_rows import record_file
from sae_genomics.data.cells.h5ad import CellTable
from sae_genomics.data.cells.read import gene_tokens, shard_counts, used_rows
from sae_genomics.data.cells.row_copy import copy_file
from sae_genomics.data.plan_file import read_plan
from sae_genomics.data.prepare import run_task
from sae_genomics.data.split import split_items
from sae_genomics.errors import DamagedArtifact, UserError
from sae_genomics.execute import execute
from sae_genomics.stages import stage_named
from tests.data.conftest import (
    MODEL,
    STORAGES,
    files_under,
    log_normalised,
    model_genes,
    random_counts,
    write_cells,
)

TYPES = {"cell_type": ["T", "B", "NK"] * 20}


def plan_of(run):
    run_task(run, 0)
    return json.loads(run.plan_file.read_text())


def all_counts(run):
    """Every shard's counts, one under the other, and the rows they come from."""
    parts = [shard_counts(run, shard) for shard in range(run.n_shards)]
    return np.concatenate([counts.toarray() for counts, _ in parts]), np.concatenate([rows for _, rows in parts])


def test_more_columns_of_the_cells_used_are_read_from_obs(tmp_path, make_run):
    genes = model_genes()[:40]
    more = {"drug": [None, "x", "y"] * 20, "dose": [1.0, 2.0] * 30}
    path = write_cells(tmp_path / "cells.h5ad", random_counts(60, 40), genes, obs={**TYPES, **more})
    run = make_run(path, data={"max_cells": 20})
    run_task(run, 0)
    rows = run.kind.read_items(run, ["item"])["item"].to_numpy()
    found = run.kind.read_columns(run, {"drug": "a", "dose": "b"})
    assert found["drug"].tolist() == [more["drug"][row] for row in rows]
    assert found["dose"].tolist() == [f"{more['dose'][row]:g}" for row in rows]
    run.kind.check_columns(run.config.data, {"drug": "a"})
    for ask in (run.kind.check_columns, run.kind.read_columns):
        with pytest.raises(UserError, match=r"a: .*cells\.h5ad has no obs column 'drugs'; did you mean drug\?"):
            ask(run.config.data if ask == run.kind.check_columns else run, {"drug": "b", "drugs": "a"})


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("where", ["X", "raw", "layers:counts", "layers:umis"])
def test_every_place_and_storage(tmp_path, make_run, storage, where):
    counts = random_counts()
    other = random_counts(seed=9) - 1
    names = [f"{name}.{i % 9}" for i, name in enumerate(model_genes()[:90])] + [f"unknown{i}" for i in range(30)]
    layers = {where.removeprefix("layers:"): counts} if where.startswith("layers") else {}
    path = write_cells(
        tmp_path / "a.h5ad",
        counts if where == "X" else other,
        names,
        storage,
        layers,
        raw=counts if where == "raw" else None,
        obs=TYPES,
    )
    run = make_run(path, data={"counts": "auto" if where != "layers:umis" else where})
    plan = plan_of(run)
    assert (plan["counts"]["where"], plan["counts"]["kind"]) == (where, "counts")
    assert (plan["n_genes_matched"], plan["n_genes_input"], plan["share_genes_matched"]) == (90, 120, 0.75)
    assert plan["share_counts_matched"] == pytest.approx(counts[:, :90].sum() / counts.sum())
    found, rows = all_counts(run)
    np.testing.assert_array_equal(found, counts[:, :90])
    np.testing.assert_array_equal(rows, np.arange(60))
    np.testing.assert_array_equal(gene_tokens(run), np.arange(90))
    cells, genes = CELLS.read(run.cells_file), GENES.read(run.genes_file)
    np.testing.assert_array_equal(cells["n_counts"], counts[:, :90].sum(axis=1))
    np.testing.assert_array_equal(cells["n_genes"], (counts[:, :90] > 0).sum(axis=1))
    np.testing.assert_array_equal(cells["heldout"], split_items(60, TYPES["cell_type"], 0.2, 0))
    assert list(cells["cell_type"]) == TYPES["cell_type"]
    assert list(cells["cell_id"][:2]) == ["cell0", "cell1"]
    np.testing.assert_array_equal(genes["counts"], counts.sum(axis=0))
    assert list(genes["gene_id"][:2]) == model_genes()[:2]
    assert list(genes["gene_id"][90:92]) == ["unknown0", "unknown1"]
    assert (genes["token"][90:] == -1).all()
    lengths = 1 + (counts[:, :90] > 0).sum(axis=1)
    assert [shard["tokens"] for shard in plan["shards"]] == [
        lengths[:25].sum(),
        lengths[25:50].sum(),
        lengths[50:].sum(),
    ]
    assert [shard["cells"] for shard in plan["shards"]] == [25, 25, 10]
    assert plan["n_tokens"] == lengths.sum()
    assert plan["n_heldout"] == 12
    assert plan["cell_type_key"] == "cell_type"


def test_as_a_stage_it_is_done_and_stays_done(tmp_path, make_run):
    run = make_run(write_cells(tmp_path / "a.h5ad", random_counts(), obs=TYPES))
    stage = stage_named("prepare")
    assert execute(run, stage, 0)
    assert run.state(stage, 0).done
    assert not execute(run, stage, 0)
    assert not list((tmp_path / "out").rglob(".partial*"))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_subset_of_cells(tmp_path, make_run, storage):
    counts = random_counts()
    run = make_run(write_cells(tmp_path / "a.h5ad", counts, storage=storage, obs=TYPES), data={"max_cells": 31})
    plan = plan_of(run)
    found, rows = all_counts(run)
    assert (plan["n_cells"], plan["n_cells_input"], len(rows)) == (31, 60, 31)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(found, counts[rows])
    np.testing.assert_array_equal(used_rows(run), rows)
    np.testing.assert_array_equal(used_rows(run, 20, 30), rows[20:30])
    assert list(CELLS.read(run.cells_file)["cell_id"]) == [f"cell{row}" for row in rows]
    another = make_run(run.data_file, data={"max_cells": 31}, run={"seed": 1, "name": "another"})
    run_task(another, 0)
    assert list(used_rows(another)) != list(rows)


@pytest.mark.parametrize("storage", STORAGES)
def test_counts_recovered_from_rounded_log1p(tmp_path, make_run, storage):
    counts = random_counts(genes=120)
    names = model_genes()[:100] + model_genes()[:20]  # twenty genes twice
    values = np.round(log_normalised(counts), 3)
    run = make_run(write_cells(tmp_path / "a.h5ad", values, [f"{n}.{i}" for i, n in enumerate(names)], storage))
    plan = plan_of(run)
    assert plan["counts"]["kind"] == "recovered"
    assert plan["counts"]["decimals"] == 3
    assert plan["counts"]["target_sum"] == pytest.approx(1e4, rel=0.01)
    assert "recovered from X" in plan["notes"][0]
    expected = counts[:, :100].copy()
    expected[:, :20] += counts[:, 100:]
    np.testing.assert_array_equal(all_counts(run)[0], expected)
    assert any("summed" in note for note in plan["notes"])


def test_log1p_of_raw_counts(tmp_path, make_run):
    counts = random_counts() * 2
    run = make_run(write_cells(tmp_path / "a.h5ad", np.log1p(counts)))
    assert plan_of(run)["counts"]["scale"] == "log1p_counts"
    np.testing.assert_array_equal(all_counts(run)[0], counts)


def test_normalised_values_only_when_allowed(tmp_path, make_run):
    values = np.random.default_rng(0).gamma(1, 1, (60, 120)).astype(np.float32)
    path = write_cells(tmp_path / "a.h5ad", values, raw=values - 1)
    with pytest.raises(UserError, match=r"non-integral value .* row 0 \(cell cell0\), gene .*allow_normalised: true"):
        run_task(make_run(path), 0)
    run = make_run(path, data={"allow_normalised": True})
    plan = plan_of(run)
    assert (plan["counts"]["where"], plan["counts"]["kind"]) == ("X", "normalised")
    np.testing.assert_array_equal(all_counts(run)[0], values)


def test_integral_counts_win_over_recovered_ones(tmp_path, make_run):
    counts = random_counts()
    path = write_cells(tmp_path / "a.h5ad", counts, layers={"counts": log_normalised(counts)})
    plan = plan_of(make_run(path))
    assert plan["counts"]["where"] == "X"
    assert any("layers:counts was passed over" in note for note in plan["notes"])


def test_a_fraction_in_the_last_cell_is_found(tmp_path, make_run, monkeypatch):
    monkeypatch.setattr("sae_genomics.data.cells.matrix.CsrMatrix.blocks.__defaults__", (200,))
    counts = random_counts()
    counts[59, 119] = 0.4
    with pytest.raises(UserError, match=r"0\.4 in row 59 \(cell cell59\), gene " + model_genes()[119]):
        run_task(make_run(write_cells(tmp_path / "a.h5ad", counts)), 0)


def test_genes_by_another_column(tmp_path, make_run):
    counts = random_counts()
    symbols = [f"GENE{i}" for i in range(120)]
    path = write_cells(tmp_path / "a.h5ad", counts, symbols, var={"gene_ids": model_genes()})
    run = make_run(path)
    plan = plan_of(run)
    assert plan["gene_key"] == "gene_ids"
    assert any("gene_ids" in note for note in plan["notes"])
    genes = GENES.read(run.genes_file)
    assert list(genes["gene_symbol"]) == symbols
    assert list(genes["gene_id"]) == model_genes()


def test_long_cells_and_stored_samples(tmp_path, make_run, monkeypatch):
    counts = random_counts(mean=3)
    path = write_cells(tmp_path / "a.h5ad", counts)
    n_genes = (counts > 0).sum(axis=1)
    plan = plan_of(make_run(path, activations={"tokens_per_cell": 30}))
    assert plan["n_tokens"] == (1 + np.minimum(n_genes, 30)).sum()
    assert plan["n_tokens_read"] == (1 + n_genes).sum()
    import dataclasses

    from sae_genomics.models import tokeniser_settings

    short = lambda *given: dataclasses.replace(tokeniser_settings(*given), max_length=41)  # noqa: E731
    monkeypatch.setattr("sae_genomics.data.cells.prepare.tokeniser_settings", short)
    assert plan_of(make_run(path, run={"name": "short"}))["n_tokens"] == (1 + np.minimum(n_genes, 40)).sum()


def test_missing_annotations_stay_missing(tmp_path, make_run):
    kinds = pd.Categorical(["T", "B", None] * 20)
    run = make_run(
        write_cells(tmp_path / "a.h5ad", random_counts(), obs={"kind": kinds}), data={"cell_type_key": "kind"}
    )
    plan_of(run)
    cells = CELLS.read(run.cells_file)
    assert cells["cell_type"].isna().sum() == 20
    assert cells[cells["cell_type"].isna()]["heldout"].sum() == 4


def test_what_sampling_tokens_saves_is_shown(tmp_path, make_run, monkeypatch, capsys):
    path = write_cells(tmp_path / "a.h5ad", random_counts(mean=3))
    run_task(make_run(path), 0)
    assert "tokens_per_cell" not in capsys.readouterr().err
    monkeypatch.setattr("sae_genomics.data.prepared._WORTH_A_HINT", 1000)
    run_task(make_run(path), 0)
    assert "with activations.tokens_per_cell 64: " in capsys.readouterr().err
    run_task(make_run(path, activations={"tokens_per_cell": 9}), 0)
    bytes_stored = 60 * 10 * 3 * 48 * 4
    assert f"tokens_per_cell: 9 stores {bytes_stored / 1000:.0f} KB" in capsys.readouterr().err


def test_six_cells_without_annotation(tmp_path, make_run):
    counts = random_counts(6, 100)
    counts[3] = 0
    plan = plan_of(make_run(write_cells(tmp_path / "a.h5ad", counts)))
    assert plan["cell_type_key"] is None
    assert plan["n_heldout"] in (1, 2)
    assert any("Cells without any gene that the model knows: 1" in note for note in plan["notes"])
    assert any("data.cell_type_key" in note for note in plan["notes"])


def test_unused_columns_of_annotation_are_listed_in_cells_order(tmp_path, make_run):
    path = write_cells(tmp_path / "a.h5ad", random_counts(), obs=TYPES, obsm={"X_umap": np.zeros((60, 2))})
    assert plan_of(make_run(path))["obsm"] == ["X_umap"]


def test_a_lost_copy_of_columns_is_made_again(tmp_path, make_run):
    counts = random_counts()
    run = make_run(write_cells(tmp_path / "a.h5ad", counts, storage="csc"), data={"max_cells": 40})
    run_task(run, 0)
    copies = list(run.checkpoints.glob("*.h5"))
    assert len(copies) == 1
    expected = all_counts(run)[0]
    copies[0].unlink()
    np.testing.assert_array_equal(all_counts(run)[0], expected)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("part", ["data", "indices", "indptr", "structure", "record"])
def test_a_damaged_copy_of_columns_is_named_and_made_again(tmp_path, make_run, monkeypatch, capsys, part, large):
    if large:  # too large to be hashed whole at every opening
        monkeypatch.setattr(content, "WHOLE_FILE_BYTES", 0)
    run = make_run(write_cells(tmp_path / "a.h5ad", random_counts(), storage="csc"), data={"max_cells": 40})
    run_task(run, 0)
    copy, expected = copy_file(run), all_counts(run)[0]
    sound, record = copy.read_bytes(), record_file(copy).read_bytes()
    damaged = record_file(copy) if part == "record" else copy
    if part in ("structure", "record"):
        at = damaged.read_bytes().index(b"shape" if part == "structure" else b'"hash": "') + 9
    else:
        with h5py.File(copy) as file:
            at = file["X"][part].id.get_chunk_info(0).byte_offset + 2
    before, changed = damaged.stat(), bytearray(damaged.read_bytes())
    changed[at] ^= 1
    damaged.write_bytes(changed)
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    row_copy._verified.clear()  # as in another process
    capsys.readouterr()
    np.testing.assert_array_equal(all_counts(run)[0], expected)
    said = capsys.readouterr().err
    assert said.count(f"{damaged} is damaged: its content is not what was written; it is made again") == 1
    assert copy.read_bytes() == sound
    assert len(record_file(copy).read_bytes()) == len(record)
    assert ("structure" in json.loads(record)) == large


def test_a_copy_that_another_process_made_again_is_used(tmp_path, make_run, capsys):
    run = make_run(write_cells(tmp_path / "a.h5ad", random_counts(), storage="csc"))
    run_task(run, 0)
    copy, other = copy_file(run), tmp_path / "other.h5"
    with h5py.File(copy) as file:
        at = file["X/data"].id.get_chunk_info(0).byte_offset + 2
    with CellTable(run.data_file) as table, row_copy.open_by_rows(run, table, "X", lambda: None) as (matrix, _):
        other.write_bytes(copy.read_bytes())
        with open(copy, "r+b") as file:  # what is open here is damaged; what stands there then is not
            file.seek(at)
            file.write(b"\xff")
        os.replace(other, copy)
        inode = copy.stat().st_ino
        np.testing.assert_array_equal(matrix.take(np.arange(60)).toarray(), random_counts())
    assert copy.stat().st_ino == inode
    assert "made again" not in capsys.readouterr().err


def test_damaged_plan(tmp_path, make_run):
    run = make_run(write_cells(tmp_path / "a.h5ad", random_counts()))
    run_task(run, 0)
    run.cells_file.write_bytes(b"PAR1")
    with pytest.raises(DamagedArtifact, match=r"cells\.parquet"):
        shard_counts(run, 0)
    run.plan_file.write_text("{")
    with pytest.raises(DamagedArtifact, match=r"plan\.json"):
        read_plan(run)


def test_the_bundled_cells_against_plain_arithmetic(make_run, tmp_path):
    """Recovered counts: expm1 divided by the cell's smallest, whole to 0.5 %."""
    import scanpy

    raw = scanpy.datasets.pbmc68k_reduced().raw
    values = np.expm1(raw.X.toarray().astype(np.float64))
    smallest = np.where(values > 0, values, np.inf).min(axis=1, keepdims=True)
    expected = np.rint(values / smallest)
    model = tmp_path / "model"
    model.mkdir()
    for file in MODEL.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    words = json.loads((MODEL / "vocab.json").read_text())
    names = [name for name in words if not name.startswith("<")]
    words = {
        **dict(zip(raw.var_names[: len(names)], range(len(names)), strict=True)),
        **{k: v for k, v in words.items() if k.startswith("<")},
    }
    (model / "vocab.json").write_text(json.dumps(words))
    run = make_run("builtin:pbmc68k_reduced", model={"path": str(model)}, data={"cell_type_key": "bulk_labels"})
    plan = plan_of(run)
    assert (plan["counts"]["where"], plan["counts"]["kind"], plan["n_cells"], plan["n_heldout"]) == (
        "raw",
        "recovered",
        700,
        140,
    )
    found, _ = all_counts(run)
    np.testing.assert_allclose(found, expected[:, : len(names)], rtol=0.005)
    assert (found == expected[:, : len(names)]).mean() > 0.999
    np.testing.assert_array_equal(found, np.rint(found))


# --- refusals: one line, nothing written ---


def refused(run, tmp_path):
    before = files_under(tmp_path)
    with pytest.raises(UserError) as error:
        run_task(run, 0)
    assert files_under(tmp_path) == before
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (-2.0, "the negative value -2"),
        (np.nan, "NaN"),
        (np.inf, "an infinite value"),
        (0.37, "the non-integral value 0.37"),
    ],
)
def test_values_that_are_no_counts(tmp_path, make_run, storage, value, says):
    counts = random_counts()
    counts[41, 17] = value
    line = refused(make_run(write_cells(tmp_path / "a.h5ad", counts, storage=storage)), tmp_path)
    assert f"X has {says} in row 41 (cell cell41), gene {model_genes()[17]}" in line
    assert ("data.allow_normalised: true" in line) == (value == 0.37)


def test_every_candidates_fault_is_told(tmp_path, make_run):
    counts = random_counts()
    bad = counts.copy()
    bad[0, 0] = np.nan
    path = write_cells(tmp_path / "a.h5ad", counts - 1, raw=bad, layers={"spliced": counts})
    line = refused(make_run(path), tmp_path)
    assert "raw has NaN" in line
    assert "X has the negative value -1" in line
    assert "layers:spliced" in line


def test_no_genes_matched(tmp_path, make_run):
    path = write_cells(tmp_path / "a.h5ad", random_counts(genes=50), [f"GENE{i}" for i in range(50)])
    line = refused(make_run(path), tmp_path)
    assert "no genes matched" in line
    assert "GENE0, GENE1" in line
    assert model_genes()[0] in line


def test_an_annotation_that_is_not_there(tmp_path, make_run):
    path = write_cells(tmp_path / "a.h5ad", random_counts(), obs={"tissue": ["blood"] * 60, "donor": ["d"] * 60})
    line = refused(make_run(path, data={"cell_type_key": "celltype"}), tmp_path)
    assert "data.cell_type_key" in line
    assert "tissue, donor" in line


def test_drugs_that_are_not_there(tmp_path, make_run):
    path = write_cells(tmp_path / "a.h5ad", random_counts(), obs={"tissue": ["blood"] * 60})
    assert "model.drug_key" in refused(make_run(path, model={"drug_key": "drug"}), tmp_path)


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        ("model", {"layers": [0, 3]}, "layer 3 is out of range"),
        ("data", {"counts": "layers:umis"}, "no layers:umis; there is X"),
        ("data", {"gene_key": "ids"}, "data.gene_key"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, make_run, section, values, says):
    path = write_cells(tmp_path / "a.h5ad", random_counts())
    assert says in refused(make_run(path, **{section: values}), tmp_path)


def test_a_checkpoint_that_disagrees_with_its_config(tmp_path, make_run):
    shutil.copytree(MODEL, tmp_path / "model")
    config = tmp_path / "model" / "model_config.yml"
    config.write_text(config.read_text().replace("d_model: 48", "d_model: 96"))
    path = write_cells(tmp_path / "a.h5ad", random_counts())
    line = refused(make_run(path, model={"path": str(tmp_path / "model")}), tmp_path)
    assert "model.safetensors" in line
    assert "shape" in line


def test_counts_of_unknown_genes_alone(tmp_path, make_run):
    counts = random_counts(genes=50)
    counts[:, :10] = 0
    names = model_genes()[:10] + [f"unknown{i}" for i in range(40)]
    assert "no token to train on" in refused(make_run(write_cells(tmp_path / "a.h5ad", counts, names)), tmp_path)


def test_nothing_above_zero(tmp_path, make_run):
    path = write_cells(tmp_path / "a.h5ad", np.zeros((10, 20), np.float32))
    assert "X holds nothing above zero" in refused(make_run(path), tmp_path)


def test_no_matrix_of_counts(tmp_path, make_run):
    path = write_cells(tmp_path / "a.h5ad", None, layers={"spliced": random_counts()})
    assert "set data.counts to one of layers:spliced" in refused(make_run(path), tmp_path)
    plan_of(make_run(path, data={"counts": "layers:spliced"}))


@pytest.mark.parametrize("storage", ["csr", "csc"])
def test_disk_too_small(tmp_path, make_run, monkeypatch, storage):
    path = write_cells(tmp_path / "a.h5ad", random_counts(mean=3), storage=storage)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000 if storage == "csr" else 10_000))
    line = refused(make_run(path), tmp_path)
    assert "disk too small" in line
    assert ("activations.dtype: float16" in line) == (storage == "csr")
    assert ("data.max_cells" in line) == (storage == "csc")  # no number of cells would fit


def test_memory_does_not_grow_with_cells(tmp_path, make_run):
    """Peak of what Python allocates while preparing 4,000 and 16,000 cells, in blocks of a bounded number of values."""
    import tracemalloc

    peaks = []
    for cells in (4_000, 16_000):
        path = tmp_path / f"{cells}.h5ad"
        matrix = sparse.random(cells, 120, density=0.5, format="csr", dtype=np.float32, random_state=0)
        matrix.data = np.ceil(matrix.data * 4)
        obs = pd.DataFrame(index=[f"cell{i}" for i in range(cells)])
        ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=model_genes())).write_h5ad(path)
        run = make_run(path, run={"name": f"n{cells}"})
        small_blocks = pytest.MonkeyPatch()
        small_blocks.setattr("sae_genomics.data.cells.matrix.CsrMatrix.blocks.__defaults__", (50_000,))
        small_blocks.setattr("sae_genomics.data.cells.prepare._CELLS_AT_ONCE", 1_000)
        run.content_hashes  # noqa: B018  reads the file
        tracemalloc.start()
        run_task(run, 0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        small_blocks.undo()
    per_cell = (peaks[1] - peaks[0]) / 12_000
    assert per_cell < 150  # bytes; the matrix itself has 480 a cell
