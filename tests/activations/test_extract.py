"""The stage as it runs: real model, real cells in an h5ad, files as the design fixes them."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from sae_genomics import cpu, progress
from sae_genomics.activations.extraction import extract
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.activations.reading.batches import ShuffledBatches
from sae_genomics.activations.reading.heldout import heldout_blocks
from sae_genomics.activations.reading.rows import chosen_rows
from sae_genomics.artifacts import CELLS
from sae_genomics.data.cells.read import gene_tokens, shard_counts
from sae_genomics.errors import Interrupted, UserError
from sae_genomics.execute import execute
from sae_genomics.items import CountItems
from sae_genomics.models import load_model, tx1
from sae_genomics.models.base import FoundationModel
from sae_genomics.models.tx1 import NativeTx1
from sae_genomics.stages import stage_named
from tests.activations.conftest import DRUGS, N_CELLS

EXTRACT = stage_named("extract")


def extract_all(run):
    return [execute(run, EXTRACT, task) for task in range(run.n_shards)]


def one_cell_at_a_time(run, shard, drugs=None):
    """Tokens and activations of a shard's cells, each through the model alone: no batches, no windows."""
    model = load_model(run.config.model)
    counts, rows = shard_counts(run, shard)
    for i in range(len(rows)):
        items = CountItems(rows[[i]], counts[[i]], gene_tokens(run), None if drugs is None else [drugs[rows[i]]])
        tokens = model.tokenise(items, run.config.run.seed)
        yield tokens, model.forward_layers(tokens, run.layers, run.config.model.hook)


def assert_stored(run, drugs=None):
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        files = {layer: open_activations(run.activations_file(layer, shard)) for layer in run.layers}
        for i, (wanted, activations) in enumerate(one_cell_at_a_time(run, shard, drugs)):
            part = slice(tokens.item_ptr[i], tokens.item_ptr[i + 1])
            for name in ("item", "token", "unit", "position", "weight", "special"):
                np.testing.assert_array_equal(getattr(tokens, name)[part], getattr(wanted, name))
            np.testing.assert_array_equal(tokens.per_token["value"][part], wanted.per_token["value"])
            for layer, x in activations.items():
                got = files[layer].rows(part.start, part.stop)
                np.testing.assert_allclose(got, x.numpy(), rtol=1e-4, atol=1e-4)
        assert i == tokens.n_items - 1
        for layer, file in files.items():
            assert file.header.hook_name == f"blocks.{layer}.hook_{run.config.model.hook}"
            assert file.header.model_identity == run.model_info.identity
            file.close()


@pytest.mark.parametrize("hook", ["resid_post", "mlp_out", "attn_out"])
def test_every_layers_rows_are_what_the_model_gives_each_cell(prepared, hook):
    run = prepared(model__hook=hook, activations__batch_tokens=700)
    assert extract_all(run) == [True] * 3
    assert_stored(run)
    assert [run.state(EXTRACT, task).status for task in range(3)] == ["done"] * 3
    assert extract_all(run) == [False] * 3


def test_drugs_are_the_second_token_of_each_cell(prepared, cells):
    import anndata

    run = prepared("gelu_chem_3b_style", model__drug_key="drug", activations__cells_per_shard=N_CELLS)
    extract_all(run)
    drugs = anndata.read_h5ad(cells).obs["drug"].tolist()
    assert set(drugs) == set(DRUGS)
    assert_stored(run, drugs)
    tokens = read_tokens(run.tokens_file(0))
    assert tokens.special.sum() == 2 * N_CELLS
    assert tokens.special[tokens.item_ptr[:-1] + 1].all()
    model = load_model(run.config.model)
    second = tokens.token[tokens.item_ptr[:-1] + 1]
    assert set(second) == {model.tokeniser.drug_token_id}


def test_a_drug_column_that_is_not_there_lists_those_that_are(prepared):
    run = prepared("gelu_chem_3b_style")
    run.config.model.drug_key = "treatment"
    with pytest.raises(UserError, match=r"model\.drug_key.*'treatment'.*drug, kind"):
        extract.run_task(run, 0)


@pytest.mark.parametrize("window_bytes", [1, 3 * 48 * 4 * 150])
def test_windows_make_no_difference(prepared, monkeypatch, window_bytes):
    monkeypatch.setitem(extract.WINDOW_BYTES, "cpu", window_bytes)
    run = prepared()
    extract_all(run)
    assert_stored(run)


@pytest.fixture
def three_workers(monkeypatch):
    """Batches of two or three cells, three of them at once; returns the threads that computed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(tx1, "tokens_at_once", lambda widest: 150)
    monkeypatch.setattr(extract, "_model", None)
    monkeypatch.setitem(extract.WINDOW_BYTES, "cpu", 1)  # as large as three batches then
    threads, forward = set(), NativeTx1.forward_layers

    def noted(self, *given):
        threads.add((threading.current_thread().name, torch.get_num_threads()))
        return forward(self, *given)

    monkeypatch.setattr(NativeTx1, "forward_layers", noted)
    yield threads
    extract._model = None


@pytest.mark.parametrize("changes", [{}, {"activations__dtype": "bfloat16"}, {"activations__tokens_per_cell": 9}])
def test_batches_side_by_side_make_no_difference(prepared, three_workers, changes):
    runs = [prepared(run__name=name, **changes) for name in ("one", "other")]
    for run in runs:
        extract_all(run)
        assert torch.get_num_threads() == 3
    assert len(three_workers) == 3
    assert {number for _, number in three_workers} == {1}
    if not changes:
        assert_stored(runs[0])
    for shard in range(runs[0].n_shards):
        for layer in runs[0].layers:
            files = [open_activations(run.activations_file(layer, shard)) for run in runs]
            one, other = files
            np.testing.assert_array_equal(one.rows(0, one.n_rows), other.rows(0, other.n_rows))
            np.testing.assert_array_equal(one.mean, other.mean)
            assert one.mean_squared_norm == other.mean_squared_norm
            exact = one.rows(0, one.n_rows).astype(np.float64)
            np.testing.assert_allclose(one.mean, exact.mean(0), rtol=1e-4, atol=1e-5)
            assert one.mean_squared_norm == pytest.approx((exact**2).sum(1).mean(), rel=1e-5)
            for file in files:
                file.close()


def test_a_failing_batch_ends_the_shard_and_leaves_nothing(prepared, three_workers, monkeypatch):
    run, forward, begun, fails = prepared(), NativeTx1.forward_layers, [], False

    def failing(self, *given):
        begun.append(1)
        if fails and len(begun) == 4:
            raise MemoryError("here")
        return forward(self, *given)

    monkeypatch.setattr(NativeTx1, "forward_layers", failing)
    execute(prepared(run__name="whole"), EXTRACT, 0)
    batches, fails = len(begun), True
    begun.clear()
    with pytest.raises(MemoryError, match="here"):
        execute(run, EXTRACT, 0)
    assert 4 <= len(begun) < batches, "what was at work beside it ended, and little was begun"
    assert not list(run.activations_file(0, 0).parent.glob("*"))
    assert torch.get_num_threads() == 3


def test_a_signal_reaches_all_workers(prepared, three_workers, monkeypatch):
    run, forward, begun, asked = prepared(), NativeTx1.forward_layers, [], False

    def signalled(self, *given):
        begun.append(1)
        if asked and len(begun) == 2:
            monkeypatch.setattr(progress, "_stop_signal", signal.SIGTERM)
        return forward(self, *given)

    monkeypatch.setattr(NativeTx1, "forward_layers", signalled)
    execute(prepared(run__name="whole"), EXTRACT, 0)
    batches, asked = len(begun), True
    begun.clear()
    with pytest.raises(Interrupted):
        execute(run, EXTRACT, 0)
    assert 2 <= len(begun) < batches
    monkeypatch.setattr(progress, "_stop_signal", None)
    assert extract_all(run) == [True] * 3
    assert_stored(run)


@pytest.mark.parametrize(("dtype", "unit"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_storage(prepared, dtype, unit):
    run = prepared(activations__dtype=dtype)
    extract_all(run)
    for shard in range(run.n_shards):
        wanted = [x for _, x in one_cell_at_a_time(run, shard)]
        for layer in run.layers:
            with open_activations(run.activations_file(layer, shard)) as file:
                exact = torch.cat([x[layer] for x in wanted]).numpy()
                np.testing.assert_allclose(file.rows(0, file.n_rows), exact, rtol=unit, atol=1e-4)


def test_compute_in_bfloat16(prepared):
    run = prepared(activations__dtype="bfloat16", model__compute_dtype="bfloat16")
    extract_all(run)
    with open_activations(run.activations_file(0, 0)) as file:
        got = file.rows(0, file.n_rows)
    run.config.model.compute_dtype = "float32"
    exact = torch.cat([x[0] for _, x in one_cell_at_a_time(run, 0)]).numpy()
    assert np.linalg.norm(got - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("there", [True, False])
def test_a_file_says_what_it_was_computed_in(prepared, monkeypatch, capsys, there):
    """On a CPU without bfloat16 products: float32's numbers, rounded once, and one line that says so."""
    cpu.say_replaced.cache_clear()
    monkeypatch.setattr(extract, "_model", None)
    monkeypatch.setattr(cpu, "multiplies", lambda dtype: there)
    run = prepared(activations__dtype="bfloat16", model__compute_dtype="bfloat16")
    extract_all(run)
    said = capsys.readouterr().err
    monkeypatch.setattr(extract, "_model", None)
    exact = prepared(run__name="exact", activations__dtype="bfloat16", model__compute_dtype="float32")
    extract_all(exact)
    for layer in run.layers:
        with (
            open_activations(run.activations_file(layer, 0)) as file,
            open_activations(exact.activations_file(layer, 0)) as other,
        ):
            same = np.array_equal(file.stored_rows(0, file.n_rows), other.stored_rows(0, other.n_rows))
            assert same is not there
            assert file.header.compute_dtype == ("bfloat16" if there else "float32")
            assert other.header.compute_dtype == "float32"
    assert said.count("bfloat16 is computed in float32") == (0 if there else 1)
    monkeypatch.setattr(cpu, "multiplies", lambda dtype: not there)  # the run goes on on another kind of node
    assert extract_all(run) == [False] * 3


def test_a_layer_added_later_is_all_that_is_computed(prepared, monkeypatch):
    extract_all(prepared(model__layers=[1]))
    run = prepared(model__layers=[0, 1])
    before = {path: path.stat().st_mtime_ns for path in (run.tokens_file(0), run.activations_file(1, 0))}
    asked = []
    forward = NativeTx1.forward_layers
    monkeypatch.setattr(
        NativeTx1,
        "forward_layers",
        lambda self, batch, layers, hook: asked.append(layers) or forward(self, batch, layers, hook),
    )
    assert extract_all(run) == [True] * 3
    assert asked
    assert all(layers == [0] for layers in asked)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    monkeypatch.undo()
    assert_stored(run)


def test_the_model_is_loaded_once_and_runs_each_cell_once(prepared, monkeypatch):
    monkeypatch.setattr(extract, "_model", None)
    loads, seen = [], []
    load, forward = extract.load_model, NativeTx1.forward_layers
    monkeypatch.setattr(extract, "load_model", lambda *arguments: loads.append(1) or load(*arguments))
    monkeypatch.setattr(
        NativeTx1, "forward_layers", lambda self, batch, *rest: seen.append(batch.item) or forward(self, batch, *rest)
    )
    run = prepared(activations__batch_tokens=300)
    extract_all(run)
    assert len(loads) == 1
    tokens = np.concatenate([read_tokens(run.tokens_file(shard)).item for shard in range(3)])
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.sort(tokens))


def test_a_few_batches_do_not_wait_for_a_compilation(prepared, monkeypatch):
    asked = []
    run = prepared(model__compile=True)
    monkeypatch.setattr(extract, "_model", None)
    monkeypatch.setattr(
        extract,
        "load_model",
        lambda settings, *rest: asked.append(settings.compile) or SimpleNamespace(info=run.model_info),
    )
    first, few = extract.loaded_model(run), extract.loaded_model(run, may_compile=False)
    assert asked == [True, False]
    assert few is not first
    assert run.config.model.compile
    assert extract.loaded_model(run, may_compile=False) is few


@pytest.mark.parametrize("per_cell", [1, 7, 1000])
def test_tokens_per_cell_stores_a_sample_of_what_the_model_saw(prepared, per_cell, tmp_path):
    full = prepared()
    extract_all(full)
    run = prepared(run__name="sampled", activations__tokens_per_cell=per_cell)
    extract_all(run)
    for shard in range(run.n_shards):
        every, sample = read_tokens(full.tokens_file(shard)), read_tokens(run.tokens_file(shard))
        genes = np.diff(every.item_ptr) - 1
        np.testing.assert_array_equal(np.diff(sample.item_ptr), np.minimum(genes, per_cell) + 1)
        index = {(cell, gene): row for row, (cell, gene) in enumerate(zip(every.item, every.token, strict=True))}
        rows = np.array([index[key] for key in zip(sample.item, sample.token, strict=True)])
        assert (np.diff(rows) > 0).all(), "the order stays"
        np.testing.assert_array_equal(sample.per_token["value"], every.per_token["value"][rows])
        for layer in run.layers:
            with (
                open_activations(full.activations_file(layer, shard)) as whole,
                open_activations(run.activations_file(layer, shard)) as part,
            ):
                wanted = whole.rows(0, whole.n_rows)[rows]
                np.testing.assert_allclose(part.rows(0, part.n_rows), wanted, rtol=1e-4, atol=1e-5)


def test_the_sample_does_not_depend_on_the_shards(prepared):
    one = prepared(activations__tokens_per_cell=5)
    other = prepared(run__name="other", activations__tokens_per_cell=5, activations__cells_per_shard=7)
    for run in (one, other):
        extract_all(run)

    def genes(run):
        return np.concatenate([read_tokens(run.tokens_file(shard)).token for shard in range(run.n_shards)])

    np.testing.assert_array_equal(genes(one), genes(other))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda_gives_what_the_cpu_gives(prepared, dtype):
    """Small windows, so that several are computed, copied and written at once."""
    on_cpu = prepared(activations__dtype=dtype)
    on_cuda = prepared(run__name="cuda", model__device="cuda", activations__dtype=dtype)
    extract_all(on_cpu)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(extract.WINDOW_BYTES, "cuda", 3 * 48 * 4 * 100)
        extract_all(on_cuda)
    for shard in range(on_cpu.n_shards):
        for layer in on_cpu.layers:
            with (
                open_activations(on_cpu.activations_file(layer, shard)) as wanted,
                open_activations(on_cuda.activations_file(layer, shard)) as got,
            ):
                np.testing.assert_allclose(got.rows(0, got.n_rows), wanted.rows(0, wanted.n_rows), rtol=0.02, atol=0.02)
                np.testing.assert_allclose(got.mean_squared_norm, wanted.mean_squared_norm, rtol=1e-2)


# --- what goes wrong ---


def with_bad_values(monkeypatch, value, cell_row=3):
    """Let the model give `value` in one token of one cell."""
    forward = NativeTx1.forward_layers

    def broken(self: FoundationModel, batch, layers, hook):
        found = forward(self, batch, layers, hook)
        at = np.flatnonzero(batch.item == cell_row)
        if len(at):
            with torch.inference_mode():
                found[layers[-1]][int(at[1]), 2] = value
        return found

    monkeypatch.setattr(NativeTx1, "forward_layers", broken)


def files_left(run):
    return [path for path in run.checkpoints.rglob("*") if path.is_file() and path.suffix == ".h5"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_rows_are_an_error_unless_allowed(prepared, monkeypatch, capsys, value):
    with_bad_values(monkeypatch, value)
    run = prepared()
    with pytest.raises(UserError, match=r"shard 0, layer 2: 1 of .* not finite.*max_nonfinite_share"):
        execute(run, EXTRACT, 0)
    assert files_left(run) == []

    run = prepared(run__name="lenient", activations__max_nonfinite_share=0.01)
    extract_all(run)
    assert "layer 2: 1 of" in capsys.readouterr().err
    with open_activations(run.activations_file(2, 0)) as file:
        assert file.n_nonfinite == 1
        bad = file.nonfinite_rows[0]
        got = file.rows(0, file.n_rows)
        assert np.isnan(got[bad]).all()
        assert np.isfinite(np.delete(got, bad, axis=0)).all()
        np.testing.assert_allclose(file.mean, np.delete(got, bad, axis=0).mean(0), rtol=1e-4, atol=1e-5)
    for cells in ("train", "heldout"):
        assert chosen_rows(run, 1, cells).n_rows - chosen_rows(run, 2, cells).n_rows in (0, 1)
    assert chosen_rows(run, 1, "all").n_rows - chosen_rows(run, 2, "all").n_rows == 1
    assert all(np.isfinite(block).all() for block in heldout_blocks(run, 2, 10_000, 100))


def test_an_overflow_of_the_storage_dtype_is_an_error_and_leaves_nothing(prepared, monkeypatch):
    with_bad_values(monkeypatch, 1e5)
    run = prepared(activations__dtype="float16")
    with pytest.raises(
        UserError, match=r"shard 0, layer 2: .* does not fit float16; set activations\.dtype to bfloat16 or float32"
    ):
        execute(run, EXTRACT, 0)
    assert files_left(run) == []


def test_a_signal_before_the_first_window_leaves_nothing_of_the_shard(prepared, monkeypatch):
    run = prepared()
    execute(run, EXTRACT, 0)
    monkeypatch.setattr("sae_genomics.progress._stop_signal", 15)
    with pytest.raises(Interrupted):
        extract.run_task(run, 1)
    monkeypatch.undo()
    assert run.state(EXTRACT, 0).done
    assert not run.tokens_file(1).exists()
    assert not list(run.checkpoints.rglob(".*"))
    assert extract_all(run) == [False, True, True]


def test_a_damaged_layer_is_made_again_when_removed_and_nothing_else(prepared):
    run = prepared()
    extract_all(run)
    whole = run.activations_file(1, 2).read_bytes()
    run.activations_file(1, 2).unlink()
    assert run.state(EXTRACT, 2).status == "missing"
    kept = run.activations_file(0, 2).stat().st_mtime_ns
    assert extract_all(run) == [False, False, True]
    assert run.activations_file(1, 2).read_bytes() == whole
    assert run.activations_file(0, 2).stat().st_mtime_ns == kept


# --- reading it back ---


@pytest.mark.parametrize("removed", [[0], [2], [0, 1]])
def test_layers_made_again_alone_are_those_of_before_bit_for_bit(prepared, monkeypatch, removed):
    """What they add up to as well, whose rounding depends on where windows end."""
    monkeypatch.setitem(extract.WINDOW_BYTES, "cpu", 1 << 16)
    run = prepared()
    extract_all(run)
    files = [run.activations_file(layer, 1) for layer in removed]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert extract_all(run) == [False, True, False]
    assert [file.read_bytes() for file in files] == before


def test_training_and_heldout_rows_are_those_of_their_cells(prepared):
    run = prepared(data__heldout_fraction=0.3)
    extract_all(run)
    heldout_cells = set(CELLS.read(run.cells_file).query("heldout")["cell"])
    assert 0 < len(heldout_cells) < N_CELLS
    rows = {True: [], False: []}
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        with open_activations(run.activations_file(1, shard)) as file:
            x = file.rows(0, file.n_rows)
        held = np.isin(tokens.item, list(heldout_cells))
        for part in rows:
            rows[part].append(x[(held == part) & ~tokens.special])
    training, held = np.concatenate(rows[False]), np.concatenate(rows[True])
    with ShuffledBatches(chosen_rows(run, 1, "train"), len(training), 0) as batches:
        got = next(batches).numpy()
    np.testing.assert_array_equal(pd.DataFrame(got).sort_values([0, 1]), pd.DataFrame(training).sort_values([0, 1]))
    np.testing.assert_array_equal(np.concatenate(list(heldout_blocks(run, 1, 10**9, 100))), held)
    assert len(np.concatenate(list(heldout_blocks(run, 1, 50, 16)))) == 50


def test_without_heldout_cells_evaluation_says_so(prepared):
    run = prepared(data__heldout_fraction=0.0)
    extract_all(run)
    with pytest.raises(UserError, match=r"no held-out cells.*data\.heldout_fraction"):
        heldout_blocks(run, 0, 10, 10)


def test_the_tokens_file_has_exactly_the_datasets_of_the_design(prepared):
    run = prepared()
    execute(run, EXTRACT, 0)
    with h5py.File(run.tokens_file(0)) as file:
        found = {name: (data.dtype, data.shape) for name, data in file.items()}
        n = file.attrs["n_rows"]
    assert found == {
        "item": (np.int64, (n,)), "token": (np.int32, (n,)), "unit": (np.int32, (n,)), "position": (np.int32, (n,)),
        "weight": (np.float32, (n,)), "special": (np.bool_, (n,)), "value": (np.float32, (n,)), "item_ptr": (np.int64, (21,)),
    }  # fmt: skip
