"""An interrupted shard goes on after its last finished window, and ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from sae_genomics import progress
from sae_genomics.activations.extraction import extract, unfinished
from sae_genomics.activations.extraction.unfinished import state_file
from sae_genomics.activations.format import store
from sae_genomics.errors import Interrupted, UserError
from sae_genomics.execute import execute
from sae_genomics.models import tx1
from sae_genomics.models.tx1 import NativeTx1
from sae_genomics.stages import stage_named

EXTRACT = stage_named("extract")
ROW_BYTES = 48 * 4


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of some cells, chunks of 32 rows of a layer: a shard has dozens of both."""
    monkeypatch.setitem(extract.WINDOW_BYTES, "cpu", 3 * ROW_BYTES * 150)
    monkeypatch.setattr(store, "CHUNK_BYTES", ROW_BYTES * 32)
    monkeypatch.setattr(extract, "_model", None)
    yield
    extract._model = None


@pytest.fixture
def stop_after(monkeypatch):
    """stop_after(n): a signal comes during the n-th batch from now on; returns the cells of each batch computed."""
    forward = NativeTx1.forward_layers

    def plan(n):
        batches = []
        monkeypatch.setattr(progress, "_stop_signal", None)

        def counted(self, batch, *given):
            batches.append(batch.item[batch.item_ptr[:-1]].tolist())
            if len(batches) == n:
                monkeypatch.setattr(progress, "_stop_signal", signal.SIGTERM)
            return forward(self, batch, *given)

        monkeypatch.setattr(NativeTx1, "forward_layers", counted)
        return batches

    return plan


def contents(run):
    files = [run.tokens_file(0), *(run.activations_file(layer, 0) for layer in run.layers)]
    return {file.relative_to(run.checkpoints): file.read_bytes() for file in files}


def hidden(run):
    return sorted(path.name for path in run.checkpoints.rglob(".*"))


def interrupt(run, stop_after, n):
    batches = stop_after(n)
    with pytest.raises(Interrupted):
        execute(run, EXTRACT, 0)
    return batches


def both_runs(prepared, **changes):
    """The run of one name in two places: fingerprints say nothing of places."""
    one, other = (
        prepared(paths__checkpoints=str(Path(f"unfinished_{name}").absolute()), **changes) for name in ("one", "other")
    )
    return one, other


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


CHANGES = [
    {},
    {"activations__dtype": "bfloat16", "model__compute_dtype": "bfloat16"},
    {"activations__dtype": "float16", "activations__tokens_per_cell": 9, "model__hook": "mlp_out"},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_a_shard_stopped_twice_ends_bit_for_bit(prepared, small_windows, stop_after, capsys, monkeypatch, changes):
    if changes:
        monkeypatch.setitem(extract.WINDOW_BYTES, "cpu", 1)  # rows are few or short: a window for each cell
    undisturbed, run = both_runs(prepared, **changes)
    all_batches = stop_after(-1)
    execute(undisturbed, EXTRACT, 0)
    first = interrupt(run, stop_after, 5)
    assert "rows are kept, the next attempt goes on after row" in capsys.readouterr().err
    assert len(hidden(run)) == 1 + len(run.layers)
    second = interrupt(run, stop_after, 3)
    third = stop_after(-1)
    assert execute(run, EXTRACT, 0)
    assert "goes on after row" in capsys.readouterr().err
    assert contents(run) == contents(undisturbed)
    assert hidden(run) == []
    twice = len(first) + len(second) + len(third) - len(all_batches)
    assert len(third) < len(all_batches)
    assert twice <= 4, "nothing but the windows at work is computed again"


def test_batches_side_by_side_stopped_end_bit_for_bit(prepared, small_windows, stop_after, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(tx1, "tokens_at_once", lambda widest: 150)
    undisturbed, run = both_runs(prepared)
    execute(undisturbed, EXTRACT, 0)
    interrupt(run, stop_after, 9)
    assert state_file(run, 0).exists()
    stop_after(-1)
    execute(run, EXTRACT, 0)
    assert contents(run) == contents(undisturbed)
    assert hidden(run) == []


def test_rows_that_are_not_finite_are_remembered(prepared, small_windows, stop_after, monkeypatch):
    undisturbed, run = both_runs(prepared, activations__max_nonfinite_share=0.5)
    forward = NativeTx1.forward_layers

    def broken(self, batch, *given):
        found = forward(self, batch, *given)
        with torch.inference_mode():
            for x in found.values():
                x[0, 0] = float("nan")
        return found

    monkeypatch.setattr(NativeTx1, "forward_layers", broken)
    execute(undisturbed, EXTRACT, 0)
    batches, count = forward, 0

    def stopping(self, batch, *given):
        nonlocal count
        count += 1
        if count == 6:
            monkeypatch.setattr(progress, "_stop_signal", signal.SIGTERM)
        return broken(self, batch, *given)

    monkeypatch.setattr(NativeTx1, "forward_layers", stopping)
    with pytest.raises(Interrupted):
        execute(run, EXTRACT, 0)
    monkeypatch.setattr(progress, "_stop_signal", None)
    execute(run, EXTRACT, 0)
    assert batches is forward
    assert contents(run) == contents(undisturbed)


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 16
    path.write_bytes(content)


def damage_rows(run):
    flip(next(run.activations_file(1, 0).parent.glob(".unfinished-*")), 0.3)


def damage_state(run):
    flip(state_file(run, 0), 0.9)


def damage_header(run):
    flip(state_file(run, 0), 0.01)


def cut_off(run):
    os.truncate(next(run.activations_file(2, 0).parent.glob(".unfinished-*")), 4000)


def remove_rows(run):
    next(run.activations_file(0, 0).parent.glob(".unfinished-*")).unlink()


@pytest.mark.parametrize("harm", [damage_rows, damage_state, damage_header, cut_off, remove_rows])
def test_what_was_kept_and_damaged_is_not_used(prepared, small_windows, stop_after, capsys, harm):
    undisturbed, run = both_runs(prepared)
    execute(undisturbed, EXTRACT, 0)
    interrupt(run, stop_after, 6)
    harm(run)
    stop_after(-1)
    capsys.readouterr()
    execute(run, EXTRACT, 0)
    assert capsys.readouterr().err.count("the shard starts from the beginning") == 1
    assert contents(run) == contents(undisturbed)
    assert hidden(run) == []


def test_other_settings_begin_anew(prepared, small_windows, stop_after, capsys):
    run = prepared()
    interrupt(run, stop_after, 6)
    stop_after(-1)
    other = prepared(model__hook="mlp_out")
    capsys.readouterr()
    execute(other, EXTRACT, 0)
    assert "under other settings; the shard starts from the beginning" in capsys.readouterr().err
    assert hidden(other) == []
    undisturbed, _ = both_runs(prepared, model__hook="mlp_out")
    execute(undisturbed, EXTRACT, 0)
    assert contents(other) == contents(undisturbed)


def test_other_tokens_begin_anew(prepared, small_windows, stop_after, capsys, monkeypatch):
    undisturbed, run = both_runs(prepared)
    tokenised = extract.tokenised_shard

    def with_other_counts(*given):
        shard = tokenised(*given)
        shard.tokens.per_token["value"][-1] += 1
        return shard

    interrupt(run, stop_after, 6)
    monkeypatch.setattr(extract, "tokenised_shard", with_other_counts)
    stop_after(-1)
    capsys.readouterr()
    execute(run, EXTRACT, 0)
    assert "the shard starts from the beginning" in capsys.readouterr().err
    execute(undisturbed, EXTRACT, 0)
    assert contents(run) == contents(undisturbed)


def test_stopped_while_going_on_nothing_is_lost(prepared, small_windows, stop_after, monkeypatch):
    undisturbed, run = both_runs(prepared)
    execute(undisturbed, EXTRACT, 0)
    interrupt(run, stop_after, 6)
    move, moved = unfinished.Keeper._move, []

    def stopping(self, kept, layer, *given):
        if len(moved) == 2:
            raise Interrupted("stopped")
        moved.append(layer)
        return move(self, kept, layer, *given)

    batches = stop_after(-1)
    monkeypatch.setattr(unfinished.Keeper, "_move", stopping)
    with pytest.raises(Interrupted):
        execute(run, EXTRACT, 0)
    assert batches == []
    assert len(hidden(run)) == 1 + len(run.layers), "a state, and a file for each layer, old or new"
    monkeypatch.setattr(unfinished.Keeper, "_move", move)
    execute(run, EXTRACT, 0)
    assert contents(run) == contents(undisturbed)
    assert hidden(run) == []


def test_an_error_keeps_nothing(prepared, small_windows, stop_after, monkeypatch):
    run = prepared()
    interrupt(run, stop_after, 6)
    stop_after(-1)
    forward, count = NativeTx1.forward_layers, 0

    def full(self, *given):
        nonlocal count
        count += 1
        if count == 3:
            raise UserError("the disk is full")
        return forward(self, *given)

    monkeypatch.setattr(NativeTx1, "forward_layers", full)
    with pytest.raises(UserError):
        execute(run, EXTRACT, 0)
    assert hidden(run) == []


def test_compressed_rows_are_not_kept_and_that_is_said(prepared, small_windows, stop_after, capsys):
    pytest.importorskip("hdf5plugin")
    run = prepared(activations__compression="zstd")
    interrupt(run, stop_after, 6)
    assert "stopped; 0 of" in capsys.readouterr().err
    assert hidden(run) == []
    stop_after(-1)
    assert execute(run, EXTRACT, 0)


def test_a_state_that_outlived_its_shard_is_removed(prepared, small_windows, stop_after):
    run = prepared()
    interrupt(run, stop_after, 6)
    state = state_file(run, 0).read_bytes()
    stop_after(-1)
    execute(run, EXTRACT, 0)
    state_file(run, 0).write_bytes(state)  # as when the kill came after the last file had its name
    extract.run_task(run, 0)
    assert hidden(run) == []


@pytest.mark.slow
def test_a_killed_shard_goes_on_too(prepared, cells, tmp_path, capsys, monkeypatch):
    undisturbed, run = both_runs(prepared)
    for each in (undisturbed, run):
        (tmp_path / f"{each.checkpoints.parent.name}.yaml").write_text(
            yaml.safe_dump(each.config.model_dump(mode="json"))
        )
    code = f"""
import sys, time
from sae_genomics.activations.extraction import extract
from sae_genomics.activations.format import store
from sae_genomics.activations.extraction import unfinished
from sae_genomics.models.tx1 import NativeTx1
extract.WINDOW_BYTES["cpu"] = 3 * {ROW_BYTES} * 150
store.CHUNK_BYTES = {ROW_BYTES} * 32
unfinished.KEEP_SECONDS = 0
forward = NativeTx1.forward_layers
def slow(self, *given):
    time.sleep(float(sys.argv[2]))
    return forward(self, *given)
NativeTx1.forward_layers = slow
from sae_genomics.cli import main
sys.exit(main(["stage", "extract", "--config", sys.argv[1], "--task", "0"]))
"""

    def start(of, pause):
        config = tmp_path / f"{of.checkpoints.parent.name}.yaml"
        return subprocess.Popen(
            [sys.executable, "-c", code, str(config), str(pause)], stderr=subprocess.PIPE, text=True
        )

    assert start(undisturbed, 0).wait() == 0
    process = start(run, 0.3)
    deadline = time.monotonic() + 120
    while not state_file(run, 0).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert state_file(run, 0).exists()
    process = start(run, 0)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert "goes on after row" in said
    assert contents(run) == contents(undisturbed)
    assert hidden(run) == []
