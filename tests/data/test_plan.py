import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sae_genomics.activations.extraction.extract import run_task as extract
from sae_genomics.activations.format import store
from sae_genomics.associations import baseline_costs as costs_of_baselines
from sae_genomics.associations import components, untrained
from sae_genomics.associations.baseline_costs import baseline_costs
from sae_genomics.data import plan
from sae_genomics.data.disk import bytes_under, check_disk, nearest_existing, size_text
from sae_genomics.data.plan_file import read_plan
from sae_genomics.data.prepare import run_task
from sae_genomics.errors import UserError
from sae_genomics.sae.spec import make_spec
from sae_genomics.stage import named
from sae_genomics.stages import stage_named, stages_of
from sae_genomics.validation import cost as validate_cost
from sae_genomics.validation import network_tables as cost_of_networks
from tests.data.conftest import random_counts, write_cells


def workload(run, tokens=None, **changed):
    counted = {"read": 700_000, "shard_stored": np.full(run.n_shards, 20_000), "largest_shard": 25_000}
    counts = SimpleNamespace(**{**counted, **(tokens or {})})
    values = {"n_units": 120, "n_gene_values": 2_400, "n_cell_types": 3, "train_tokens": 500_000}
    return plan.workload(run, counts, **{**values, **changed})


@pytest.fixture
def run(tmp_path, make_run):
    return make_run(write_cells(tmp_path / "a.h5ad", random_counts(mean=4)), model={"device": "cpu"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("chunk_bytes", [None, 2_000])
def test_disk_of_extraction_is_what_it_writes(tmp_path, make_run, monkeypatch, dtype, chunk_bytes):
    if chunk_bytes:
        monkeypatch.setattr(store, "CHUNK_BYTES", chunk_bytes)
    path = write_cells(tmp_path / "a.h5ad", random_counts(mean=4))
    run = make_run(path, activations={"dtype": dtype}, model={"device": "cpu"})
    run_task(run, 0)
    for shard in range(run.n_shards):
        extract(run, shard)
    estimate = next(each for each in read_plan(run)["estimates"] if each["stage"] == "extract")
    written = bytes_under(run.checkpoints / "activations")
    assert written <= estimate["disk_bytes"] <= 1.3 * written  # files of 100 KB: HDF5's own structures show


def test_every_stage_is_estimated(run):
    estimates = plan.estimate(run, workload(run))
    assert [each.stage for each in estimates] == [stage.name for stage in stages_of(run)]
    assert [each.tasks for each in estimates] == [run.n_tasks(stage) for stage in stages_of(run)]
    assert all(each.disk_bytes > 0 and each.memory_bytes > 0 and each.seconds > 0 for each in estimates)


def test_networks_are_counted(run):
    work, other = workload(run), replace(workload(run), n_networks=1)
    less, more = (named(stage_named("validate").cost)(each) for each in (work, other))
    lists = 3 * (1 + len(work.baselines)) * 3 * work.d_sae * work.n_layers
    assert more.seconds - less.seconds == pytest.approx(lists * 5e-3)
    assert more.memory_bytes > less.memory_bytes
    assert cost_of_networks.NULL_REPEATS == validate_cost._NULL_REPEATS


def test_what_makes_it_dearer(run, make_run):
    def cost(stage, given_run=run, **changed):
        return next(each for each in plan.estimate(given_run, workload(given_run, **changed)) if each.stage == stage)

    tenfold = np.full(run.n_shards, 200_000)
    assert cost("extract", tokens={"shard_stored": tenfold}).disk_bytes == pytest.approx(
        10 * cost("extract").disk_bytes, rel=0.1
    )
    assert cost("extract", tokens={"read": 10**9}).seconds > 100 * cost("extract").seconds
    half = make_run(run.data_file, activations={"dtype": "float16"})
    assert cost("extract", half).disk_bytes < 0.6 * cost("extract").disk_bytes
    wide = make_run(run.data_file, sae={"d_sae": 4096})
    d_in = run.model_info.d_model
    weights = 4 * (2 * d_in * 4096 + 4096 + d_in)
    assert cost("train", wide).disk_bytes > 3 * weights
    together = make_run(run.data_file, sae={"d_sae": 4096, "layers_at_once": 2})
    assert cost("train", together).memory_bytes > cost("train", wide).memory_bytes + 5 * weights
    assert cost("train", together).disk_bytes >= cost("train", wide).disk_bytes + 3 * weights
    sae = {"d_sae": 4096, "batch_tokens": 8192}
    dense, sparse = (make_run(run.data_file, sae={**sae, "architecture": name}) for name in ("jumprelu", "topk"))
    graph = 4 * 8192 * 4096  # one number for each row and latent
    assert cost("train", dense).memory_bytes > cost("train", sparse).memory_bytes + 8 * graph
    fewer = make_run(run.data_file, model={"layers": [0]})
    assert cost("extract", fewer).disk_bytes < 0.4 * cost("extract").disk_bytes
    assert cost("extract", fewer).seconds < cost("extract").seconds


def test_the_width_is_the_trainers(run):
    assert workload(run).d_sae == make_spec(run.config.sae, run.model_info.d_model, 10, 0).d_sae


def test_no_token_to_train_on(run):
    with pytest.raises(UserError, match="no token to train on"):
        workload(run, train_tokens=0)


def test_savings_name_a_setting_that_fits(run):
    work = workload(run)
    stored = {256: work.n_stored, 64: work.n_stored // 3, 32: work.n_stored // 6}
    full = work.n_stored * work.n_layers * work.d_model * work.item_bytes
    text = plan.savings(run.kind, work, stored, full // 2)
    for words in (
        "activations.dtype: float16",
        "model.layers",
        "activations.tokens_per_cell: 64",
        "data.max_cells: 30",
    ):
        assert words in text
    assert "activations.tokens_per_cell: 32" in plan.savings(run.kind, work, stored, full // 4)
    nothing = plan.savings(run.kind, work, stored, 0)
    assert "activations.tokens_per_cell: 32" in nothing
    assert "data.max_cells" not in nothing


def test_rates(monkeypatch):
    assert plan.device_rate("cpu", "float32") == plan.CPU_CORE_RATE["float32"] * len(os.sched_getaffinity(0))
    assert (
        plan.device_rate("cuda:1", "bfloat16")
        > plan.device_rate("cuda", "float32")
        > plan.device_rate("cpu", "float32")
    )
    assert plan.device_rate("mps", "float32") == plan.MPS_RATE
    assert plan.device_rate("auto", "float32") > 0


def test_folders_of_one_disk_are_added_up(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    needs = {tmp_path / "not" / "yet": 600_000, tmp_path: 300_000}
    check_disk(needs, "this run", "lower x")
    needs[tmp_path] = 500_000
    with pytest.raises(
        UserError, match=r"disk too small: this run needs about 1.1 MB more under .*, where 1.0 MB are free; lower x"
    ):
        check_disk(needs, "this run", "lower x")
    assert not (tmp_path / "not").exists()


def test_what_is_there_counts(tmp_path, run, monkeypatch):
    """A run that has written most of its files needs only the rest."""
    run_task(run, 0)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3_000_000))
    with pytest.raises(UserError, match="disk too small"):
        run_task(run, 0)
    (run.checkpoints / "activations").mkdir(parents=True)
    (run.checkpoints / "activations" / "x.h5").write_bytes(bytes(40_000_000))
    (run.results / "x").write_bytes(bytes(40_000_000))
    run_task(run, 0)


def test_sizes_read_well(tmp_path):
    assert [size_text(n) for n in (0, 999, 1000, 123_456, 1_450_000, 2.5e9, 999.7e9, 4.2e15)] == [
        "0 bytes", "999 bytes", "1.0 KB", "123 KB", "1.4 MB", "2.5 GB", "1.0 TB", "4,200 TB",
    ]  # fmt: skip
    assert nearest_existing(tmp_path / "a" / "b") == tmp_path
    assert bytes_under(tmp_path / "a") == 0


def test_scratch_of_associate_is_room_in_checkpoints(run, make_run):
    linear = {"baselines": ["neurons", "pca", "ica"]}
    run = make_run(run.data_file, model={"device": "cpu"}, validation=linear)
    needs = plan.disk_needs(run, plan.estimate(run, workload(run, n_cell_types=0)))
    typed = plan.estimate(run, workload(run))
    scratch = next(each for each in typed if each.stage == "associate").scratch_bytes
    units = len(run.layers) * run.n_items * 3 * 2 * run.model_info.d_model * 12
    assert scratch > units
    with_types = plan.disk_needs(run, typed)
    assert with_types[run.checkpoints] == needs[run.checkpoints] + scratch, "without cell types no cell is ranked"
    sampled = make_run(run.data_file, model={"device": "cpu"}, associations={"max_auroc_cells": 10}, validation=linear)
    fewer = next(each for each in plan.estimate(sampled, workload(sampled)) if each.stage == "associate")
    assert fewer.scratch_bytes == pytest.approx(scratch * 20 / run.n_items, abs=1)
    untrained_too = make_run(run.data_file, model={"device": "cpu"})
    activations = len(run.layers) * workload(run).n_stored * run.model_info.d_model * 4
    assert _associate(untrained_too, workload(untrained_too)).scratch_bytes > activations


def test_what_each_baseline_costs(run, make_run):
    work = workload(run)
    costs = {cost.name: cost for cost in baseline_costs(work)}
    assert list(costs) == ["neurons", "pca", "ica", "untrained"]
    d_model = run.model_info.d_model
    assert [cost.units for cost in costs.values()] == [2 * d_model, 2 * d_model, 2 * d_model, run.d_sae]
    everything = _associate(run, work)
    for left_out, cost in costs.items():
        rest = [name for name in costs if name != left_out]
        without = make_run(run.data_file, model={"device": "cpu"}, validation={"baselines": rest})
        cheaper = _associate(without, workload(without))
        assert everything.disk_bytes - cheaper.disk_bytes == cost.disk_bytes > 0
        assert everything.seconds - cheaper.seconds == pytest.approx(cost.seconds, abs=0.1)
        assert cost.seconds > 0
    few = make_run(run.data_file, model={"device": "cpu"}, validation={"untrained_cells": 1})
    fewer = {cost.name: cost for cost in baseline_costs(workload(few))}
    assert fewer["untrained"].scratch_bytes < costs["untrained"].scratch_bytes
    assert fewer["untrained"].seconds <= costs["untrained"].seconds
    assert fewer["pca"] == costs["pca"]
    wide = replace(work, d_model=2560, n_parameters=3_000_000_000, n_units=30_000)
    assert {cost.name: cost.units for cost in baseline_costs(wide)} == {
        "neurons": 5120, "pca": 512, "ica": 512, "untrained": run.d_sae,
    }  # fmt: skip
    dearest = {cost.name: cost.memory_bytes for cost in baseline_costs(wide)}
    assert dearest["neurons"] >= 2560 * 30_000 * 40, "sums of both signs"
    assert dearest["untrained"] > 12e9, "the model's weights"


def _associate(run, work):
    return next(each for each in plan.estimate(run, work) if each.stage == "associate")


def test_prepare_states_the_cost_of_the_baselines(tmp_path, make_run, capsys):
    path = write_cells(tmp_path / "a.h5ad", random_counts(mean=4))
    run = make_run(path, model={"device": "cpu"}, validation={"baselines": ["neurons", "untrained"]})
    run_task(run, 0)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "the baselines" in line]
    assert line.startswith("prepare: of that the baselines: roughly neurons ")
    assert line.endswith("of memory; validation.baselines chooses")
    costs = read_plan(run)["baselines"]
    assert [cost["name"] for cost in costs] == ["neurons", "untrained"]
    assert set(costs[0]) == {"name", "units", "disk_bytes", "scratch_bytes", "memory_bytes", "seconds"}
    none = make_run(path, model={"device": "cpu"}, validation={"baselines": []})
    run_task(none, 0)
    assert "no baselines (validation.baselines is empty)" in capsys.readouterr().err


def test_the_costs_are_of_the_limits_that_hold():
    for module in (components, untrained):
        for name in ("MAX_COMPONENTS", "FIT_ROWS", "FIT_BYTES", "ICA_ITERATIONS", "SHARE_OF_STEPS"):
            if hasattr(module, name):
                assert getattr(costs_of_baselines, name) == getattr(module, name)


def test_whole_rankings_cost_what_reads_them(run, make_run):
    ranked = make_run(run.data_file, model={"device": "cpu"}, validation={"test": "savage"})
    units = run.d_sae + sum(cost.units for cost in baseline_costs(workload(run)))
    more = _associate(ranked, workload(ranked)).disk_bytes - _associate(run, workload(run)).disk_bytes
    assert more == pytest.approx(len(run.layers) * units * 120 * 0.5 * 8, abs=1)
    wide = replace(workload(ranked), n_units=15_000, d_sae=4096)
    memory = {each.stage: each.memory_bytes for each in plan.estimate(ranked, wide)}
    assert memory["validate"] > 4096 * 15_000 * 0.5 * 24, "a row as it is read, and its score"
