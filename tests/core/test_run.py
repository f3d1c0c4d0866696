"""What a changed key, a damaged file, or another owner does to a run's state."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import pyarrow as pa
import pytest

from sae_genomics import file_keys, hashes
from sae_genomics.checked_json import read_checked_json, write_checked_json
from sae_genomics.cluster.scratch import StagedPaths
from sae_genomics.config import parse_config
from sae_genomics.data.cells.h5ad import resolve
from sae_genomics.errors import UserError
from sae_genomics.run import Run
from sae_genomics.stages import stage_named, stages_of
from sae_genomics.validation.normal_form import schema
from tests.pipeline.conftest import small_values
from tests.stage_names import EVERY, on_from


def make_run(folder: Path, config_file: str = "a.yaml", **sections: dict[str, Any]) -> Run:
    return Run(parse_config(small_values(folder, **sections), "test"), folder / config_file)


def finish(run: Run) -> None:
    """Leave every task's files, empty but recorded."""
    for stage in stages_of(run):
        for task in range(run.n_tasks(stage)):
            for path in stage.files(run, task):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
            run.write_manifest(stage, task, {})


def not_done(run: Run) -> dict[str, set[str]]:
    found = {stage.name: {state.status for state in run.states(stage)} for stage in stages_of(run)}
    return {name: statuses for name, statuses in found.items() if statuses != {"done"}}


def test_everything_is_missing_then_done(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert all(statuses == {"missing"} for statuses in not_done(run).values())
    assert len(not_done(run)) == len(EVERY)
    finish(run)
    assert not_done(make_run(tmp_path)) == {}


@pytest.mark.parametrize(
    ("section", "values", "stale"),
    [
        ("sae", {"k": 9}, on_from("train")),
        ("associations", {"top_genes": 7}, on_from("associate")),
        ("validation", {"fdr": 0.01}, on_from("validate")),
        ("report", {"top_features": 3}, ["report"]),
        ("data", {"heldout_fraction": 0.3}, EVERY),
        ("model", {"hook": "mlp_out"}, on_from("extract")),
        ("activations", {"dtype": "float16"}, on_from("extract")),
        ("run", {"seed": 5}, EVERY),
        ("activations", {"batch_tokens": 77}, []),
        ("model", {"compile": True}, []),
        ("sae", {"log_every": 3, "checkpoint_every_seconds": 9}, []),
        ("cluster", {"profile": "gpu_a100"}, []),
    ],
)
def test_a_changed_key_makes_exactly_its_stages_stale(
    tmp_path: Path, section: str, values: dict[str, Any], stale: list[str]
) -> None:
    finish(make_run(tmp_path))
    changed = make_run(tmp_path, **{section: values})
    # A stale input is still there, so the report's set of done tasks changes with it.
    assert {name: {"stale"} for name in stale} == not_done(changed)
    if stale and section != "report":
        key = next(iter(values))
        assert f"{section}.{key}" in changed.state(stage_named(stale[0]), 0).why


def test_what_was_made_from_a_file_that_is_made_anew_is_stale_unless_it_came_out_the_same(tmp_path: Path) -> None:
    finish(make_run(tmp_path))
    run = make_run(tmp_path)
    train = stage_named("train")
    file = run.sae_dir(run.layers[0]) / "sae_weights.safetensors"
    file.write_bytes(b"x")
    run.write_manifest(train, 0, {})
    assert not_done(make_run(tmp_path)) == {}, "bit for bit the same"
    file.write_bytes(b"y")
    run.write_manifest(train, 0, {})
    after = make_run(tmp_path)
    associate = after.states(stage_named("associate"))
    assert (associate[0].status, associate[0].why) == ("stale", "train came out different since")
    assert all(state.done for state in associate[1:]), "other layers read other SAEs"
    assert set(not_done(after)) == {"associate", "report"}


def test_adding_a_layer_leaves_the_others_done(tmp_path: Path) -> None:
    finish(make_run(tmp_path))
    more = make_run(tmp_path, model={"layers": [0, 1, 2]})
    assert [state.status for state in more.states(stage_named("train"))] == ["done", "missing", "done"]
    assert {state.status for state in more.states(stage_named("extract"))} == {"missing"}
    assert "layer_01" not in more.state(stage_named("train"), 0).why
    fewer = make_run(tmp_path, model={"layers": [2]})
    assert not_done(fewer) == {"report": {"stale"}}


def test_damage_is_noticed_and_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    finish(run)
    damaged = run.activations_file(2, 1)
    damaged.write_bytes(b"")
    state = run.state(stage_named("extract"), 1)
    assert state.status == "missing"
    assert "shard_0001.h5 is damaged" in state.why
    damaged.unlink()
    assert run.state(stage_named("extract"), 1).status == "missing"
    assert run.state(stage_named("extract"), 0).done


def flip(file: Path, at: int) -> None:
    """Change a byte as a failing disk does it: neither size nor time tell."""
    before, content = file.stat(), bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["extract", "train"])
def test_every_byte_of_a_manifest_counts(tmp_path: Path, name: str) -> None:
    run, stage = make_run(tmp_path), stage_named(name)
    finish(run)
    file = run.manifest_file(stage, 0)
    sound = file.read_bytes()
    for at in range(len(sound)):
        flip(file, at)
        state = run.state(stage, 0)
        assert state.status == "missing", sound[at - 20 : at + 20]
        assert state.damaged == file
        assert f"{file.name} is damaged" in state.why
        file.write_bytes(sound)
    assert not_done(run) == {}


def test_a_manifest_of_an_earlier_version_is_believed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    finish(run)
    for file in [*tmp_path.rglob("manifests/*/*.json"), run.results / "run.json"]:
        value = json.loads(file.read_text())
        assert value.pop("check")
        file.write_text(json.dumps(value))
    assert not_done(make_run(tmp_path)) == {}


def test_a_damaged_record_of_the_owner_is_named_and_not_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    finish(run)
    file = run.results / "run.json"
    sound = file.read_bytes()
    for at in range(0, len(sound), 7):
        flip(file, at)
        again = make_run(tmp_path)
        assert again.content_hashes == run.content_hashes
        again.check()
        assert f"{file} is damaged" in capsys.readouterr().err
        file.write_bytes(sound)
    flip(file, sound.index(b'"identities"') + 3)
    assert not_done(make_run(tmp_path)) == {}
    make_run(tmp_path).write_manifest(stage_named("prepare"), 0, {})
    assert file.read_bytes() == sound


def test_a_file_without_its_manifest_is_not_done(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    finish(run)
    run.manifest_file(stage_named("train"), 1).unlink()
    assert [state.status for state in run.states(stage_named("train"))] == ["done", "missing"]


def test_the_report_is_stale_when_a_missing_layer_arrives(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    finish(run)
    validate = stage_named("validate")
    manifest = run.manifest_file(validate, 1).read_bytes()
    run.manifest_file(validate, 1).unlink()
    run.write_manifest(stage_named("report"), 0, {})
    assert run.state(stage_named("report"), 0).done
    run.manifest_file(validate, 1).write_bytes(manifest)
    assert run.state(stage_named("report"), 0).status == "stale"


def test_layers_wait_for_their_own_layer_and_for_all_shards(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert [task for _, task in stage_named("train").needed_tasks(run, 1)] == [0, 1, 2]
    assert [task for _, task in stage_named("associate").needed_tasks(run, 1)] == [1]
    everything = [(stage.name, task) for stage in stages_of(run)[:-1] for task in range(run.n_tasks(stage))]
    assert [(stage.name, task) for stage, task in stage_named("report").needed_tasks(run, 0)] == everything


def test_a_name_belongs_to_one_config_data_and_model(tmp_path: Path) -> None:
    finish(make_run(tmp_path))
    make_run(tmp_path, sae={"k": 9}).check()  # the same file, edited
    make_run(tmp_path, "copy.yaml").check()  # another file that says the same
    with pytest.raises(UserError, match=r"run.name=small_2"):
        make_run(tmp_path, "copy.yaml", sae={"k": 9}).check()
    make_run(tmp_path, "copy.yaml", sae={"k": 9}).check(overwrite=True)
    fixture = Path(__file__).parents[1] / "fixtures" / "tx1_parity" / "relu_70m_style"
    with pytest.raises(UserError, match="other model"):
        make_run(tmp_path, model={"name": None, "path": str(fixture), "layers": [0]}).check()


def test_moving_a_run_keeps_it_done(tmp_path: Path) -> None:
    finish(make_run(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    assert not_done(make_run(tmp_path / "there")) == {}


def test_an_edited_gene_set_file_makes_validation_stale(tmp_path: Path) -> None:
    gmt = tmp_path / "mine.gmt"
    gmt.write_text("SET\tsource\tCD79A\tCD79B\tMS4A1\n")
    sections = {"validation": {"gmt": [str(gmt)]}}
    finish(make_run(tmp_path, **sections))
    assert not_done(make_run(tmp_path, **sections)) == {}
    gmt.write_text("SET\tsource\tCD79A\tCD79B\tCD19\n")
    edited = make_run(tmp_path, **sections)
    assert not_done(edited) == {"validate": {"stale"}, "report": {"stale"}}
    assert edited.state(stage_named("validate"), 0).why == "validation.gmt: the content of mine.gmt changed"


def test_an_edited_gene_set_file_below_the_home_folder_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.gmt").write_text("SET\tsource\tCD79A\tCD79B\n")
    sections = {"validation": {"gmt": ["~/my.gmt"]}}
    finish(make_run(tmp_path, **sections))
    assert not_done(make_run(tmp_path, **sections)) == {}
    moved = {"validation": {"gmt": [str(tmp_path / "my.gmt")]}}
    assert not_done(make_run(tmp_path, **moved)) == {}
    (tmp_path / "my.gmt").write_text("SET\tsource\tCD79A\tCD19\n")
    assert not_done(make_run(tmp_path, **sections)) == {"validate": {"stale"}, "report": {"stale"}}


def test_gene_set_files_of_one_name_in_two_folders_both_count(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "my.gmt" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("SET\tsource\tCD79A\tCD79B\n")
    sections = {"validation": {"gmt": [str(path) for path in paths]}}
    finish(make_run(tmp_path, **sections))
    assert not_done(make_run(tmp_path, **sections)) == {}
    paths[0].write_text("SET\tsource\tCD79A\tCD19\n")
    assert not_done(make_run(tmp_path, **sections)) == {"validate": {"stale"}, "report": {"stale"}}


def write_database(folder: Path, genes: list[str], version: str = "1") -> None:
    rows = {
        name: [""] * len(genes) for name in ("source", "term_name", "ensembl_id", "hgnc_id", "evidence", "category")
    }
    rows |= {"term_id": ["T:1"] * len(genes), "gene_symbol": genes}
    table = pa.table({**rows, "score": pa.nulls(len(genes), pa.float64()), "negative": [False] * len(genes)})
    schema.write_table(folder / schema.TERMS_FILE, table.select(schema.TERMS.names))
    schema.write_source(folder, {"name": folder.name, "version": version})


def test_a_database_that_comes_changes_or_goes_makes_validation_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finish(make_run(tmp_path))  # as a run of the time before databases was
    stale = {"validate": {"stale"}, "report": {"stale"}}
    folder = tmp_path / "databases" / "reactome"

    write_database(folder, ["CD79A"])
    added = make_run(tmp_path)
    assert not_done(added) == stale
    assert added.state(stage_named("validate"), 0).why == "validation.databases: the content of reactome changed"
    assert not_done(make_run(tmp_path, validation={"databases": []})) == {}  # asks for none
    finish(added)
    write_database(folder, ["CD79A"], version="2")  # another version, of the same content
    assert not_done(make_run(tmp_path)) == {}
    assert not_done(make_run(tmp_path, validation={"databases": ["reactome"]})) == {}  # the same, by name
    shutil.copytree(tmp_path / "databases", tmp_path / "moved")
    paths = {**small_values(tmp_path)["paths"], "databases": str(tmp_path / "moved")}
    assert not_done(make_run(tmp_path, paths=paths)) == {}
    write_database(folder, ["CD79A", "CD79B"])
    assert not_done(make_run(tmp_path)) == stale
    shutil.rmtree(folder)
    gone = make_run(tmp_path)
    assert not_done(gone) == stale
    assert gone.state(stage_named("validate"), 0).why == "validation.databases: the content of reactome changed"
    (folder / "raw").mkdir(parents=True)  # of a download that has not ended
    assert not_done(make_run(tmp_path, validation={"databases": ["reactome"]})) == stale


def test_an_update_of_the_built_in_gene_sets_makes_validation_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(make_run(tmp_path))
    updated = tmp_path / "gene_sets"
    shutil.copytree(file_keys.BUILTIN_GENE_SETS, updated)
    monkeypatch.setattr(file_keys, "BUILTIN_GENE_SETS", updated)
    assert not_done(make_run(tmp_path)) == {}
    with (updated / "cell_types.gmt").open("a") as file:
        file.write("NEW\tsource\tCD79A\tCD79B\n")
    assert not_done(make_run(tmp_path)) == {"validate": {"stale"}, "report": {"stale"}}
    why = make_run(tmp_path).state(stage_named("validate"), 0).why
    assert why == "validation.builtin: the content of cell_types.gmt changed"


def large_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled cells as a file that counts as large."""
    monkeypatch.setattr(hashes, "WHOLE_FILE_LIMIT", 1 << 16)
    file = folder / "cells.h5ad"
    shutil.copyfile(resolve("builtin:pbmc68k_reduced"), file)
    return file


def test_touching_copying_and_moving_a_large_input_keeps_a_run_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = large_data(tmp_path, monkeypatch)
    finish(make_run(tmp_path, data={"path": str(file)}))
    os.utime(file, (1, 1))
    assert not_done(make_run(tmp_path, data={"path": str(file)})) == {}
    copy = tmp_path / "elsewhere" / "copy.h5ad"
    copy.parent.mkdir()
    shutil.copyfile(file, copy)
    file.unlink()  # moved, to another disk
    for config_file in ("a.yaml", "b.yaml"):
        moved = make_run(tmp_path, config_file, data={"path": str(copy)})
        moved.check()
        assert not_done(moved) == {}


def test_a_changed_large_input_makes_everything_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = large_data(tmp_path, monkeypatch)
    finish(make_run(tmp_path, data={"path": str(file)}))
    with h5py.File(file, "r+") as cells:
        index = cells["obs"].attrs["_index"] if isinstance(cells["obs"], h5py.Group) else "index"
        if isinstance(cells["obs"], h5py.Group):
            cells["obs"][index][5] = "renamed"
        else:
            row = cells["obs"][5]
            row[index] = b"renamed"
            cells["obs"][5] = row
    changed = make_run(tmp_path, data={"path": str(file)})
    assert not_done(changed) == {stage.name: {"stale"} for stage in stages_of(changed)}
    assert changed.state(stage_named("prepare"), 0).why == "the data changed"


def test_a_run_with_other_paths_is_the_same_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    finish(run)
    train, layer, other = stage_named("train"), run.layers[1], run.layers[0]
    staged = run.with_paths(StagedPaths.of_layer(run.paths, layer, tmp_path / "node"))
    assert staged.tokens_file(0) == tmp_path / "node" / run.tokens_file(0).relative_to(run.checkpoints)
    assert staged.activations_file(layer, 2).is_relative_to(tmp_path / "node")
    assert staged.activations_file(other, 2) == run.activations_file(other, 2)
    assert staged.manifest_file(train, 1) == run.manifest_file(train, 1)
    assert staged.heartbeat_file(train, 1) == run.heartbeat_file(train, 1)
    assert staged.base_fingerprint(train) == run.base_fingerprint(train)
    assert not_done(run) == {}
    assert staged.state(stage_named("extract"), 0).status == "missing", "its files are on the node"
    assert run.state(stage_named("extract"), 0).done


def test_a_setting_that_came_later_is_not_said_to_have_changed(tmp_path: Path) -> None:
    train = stage_named("train")
    run = make_run(tmp_path)
    finish(run)
    file = run.manifest_file(train, 0)
    manifest = read_checked_json(file)
    del manifest["config"][train.varying[0]]
    write_checked_json(file, manifest)
    assert make_run(tmp_path).state(train, 0).done
    assert make_run(tmp_path, sae={"k": 9}).state(train, 0).why == "sae.k was 8, is 9"
